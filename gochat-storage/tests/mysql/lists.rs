use std::sync::atomic::Ordering;

use gochat_core::{
    ids::{ConversationId, MessageId, Seq},
    model::{ConversationKind, ConversationView, GroupAction, Mark, NewConversation},
    ports::{Conversations, Messages},
};
use gochat_storage::mysql::{self, MysqlSettings};
use uuid::Uuid;

use crate::{
    proxy::Proxy,
    support::{draft, group, new_group, now, on_a_database, send, users},
};

/// A list shows what each conversation shows alone, and asks once for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_as_many_statements_for_sixty_conversations_as_for_few() {
    on_a_database(async |database| {
        let proxy = Proxy::start(database.address()).await;
        let settings = MysqlSettings { url: database.url_by(proxy.port), ..database.settings() };
        let store = mysql::connect(&settings).await.unwrap();
        let [a, b, c] = users(&store).await;
        let mut ids: Vec<ConversationId> = Vec::new();
        for peer in users::<20>(&store).await {
            let pair = NewConversation { kind: ConversationKind::Single, max_members: 2, ..new_group(a, &[peer]) };
            let pair = store.create_conversation(&pair).await.unwrap().conversation.id;
            send(&store, vec![draft(pair, peer, "hello"), draft(pair, a, "hello")]).await;
            store.mark(&[Mark { conversation: pair, user: peer, read_seq: Seq(2), delivered_seq: Seq(3) }]).await.unwrap();
            ids.push(pair);
        }
        for n in 0..40 {
            let id = group(&store, a, &[b, c]).await;
            let said = (0..n % 4).map(|_| draft(id, b, "x")).collect();
            send(&store, said).await;
            let marks = [Mark { conversation: id, user: c, read_seq: Seq(n % 3), delivered_seq: Seq(9) }];
            store.mark(&marks).await.unwrap()[0].as_ref().unwrap();
            ids.push(id);
        }
        store.manage(ids[59], c, &GroupAction::Leave, MessageId::from(Uuid::now_v7()), now()).await.unwrap();

        let list = async |limit: usize| -> (Vec<ConversationView>, usize) {
            proxy.traffic.statements.store(0, Ordering::SeqCst);
            let found = store.conversations_of(a, None, limit).await.unwrap();
            (found, proxy.traffic.statements.load(Ordering::SeqCst))
        };
        // Opening a connection has statements of its own.
        list(1).await;
        // The list, last entries, unread, peers, marks of groups.
        let (found, statements) = list(60).await;
        assert_eq!((found.len(), statements), (60, 5));
        assert_eq!(list(45).await.1, 5);
        for view in &found {
            let alone = store.conversation_view(a, view.conversation.id).await.unwrap().unwrap();
            assert_eq!(format!("{view:?}"), format!("{alone:?}"));
        }
        let pair = found.iter().find(|view| view.conversation.id == ids[0]).unwrap();
        assert_eq!((pair.unread, pair.peer_read_seq, pair.peer_delivered_seq), (1, Seq(2), Seq(3)));
        assert_eq!(pair.last_message.as_ref().map(|message| message.seq), Some(Seq(3)));
        let three = found.iter().find(|view| view.conversation.id == ids[20 + 3]).unwrap();
        assert_eq!((three.unread, three.peer, three.peer_delivered_seq), (3, None, Seq(4)));
    })
    .await;
}
