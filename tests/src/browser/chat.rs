//! Several people, each in a browser of their own, at a server that runs as a process.

use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;

use super::{Driver, page::Page};
use crate::{
    client::{PASSWORD, User},
    process::Process,
    sandbox::Sandbox,
};

/// Cheap passwords: three registrations are not what is tested here.
fn server(folder: &TempDir) -> Process {
    Process::start(folder.path(), &[("GOCHAT_PASSWORDS_ITERATIONS", "1000")])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_register_and_chat_both_ways_and_a_reload_keeps_all() {
    let (folder, driver) = (tempfile::tempdir().unwrap(), Driver::start());
    let server = server(&folder);
    two_people_chat(&driver, [server.address; 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_chat_over_two_gateways_of_four_services() {
    let driver = Driver::start();
    let server = Sandbox::start_services().await;
    two_people_chat(&driver, [server.address(), server.address()]).await;
    server.shutdown().await;
}

async fn two_people_chat(driver: &Driver, [at_ana, at_bo]: [SocketAddr; 2]) {
    let (ana, bo) = (Page::open(driver, at_ana).await, Page::open(driver, at_bo).await);
    ana.register("ana", "Ana Lovelace").await;
    bo.register("bo", "Bo Turing").await;

    ana.start_chat("bo").await;
    ana.say("Hello Bo").await;
    ana.until_state("Hello Bo", "delivered").await;
    bo.until_unread("Ana Lovelace", 1).await;
    bo.open_conversation("Ana Lovelace").await;
    bo.until_messages(&["Hello Bo"]).await;
    bo.until_unread("Ana Lovelace", 0).await;
    ana.until_state("Hello Bo", "read").await;

    // Text stays text.
    bo.say("<b>Hello</b> <img src=x onerror=alert(1)> Ana & all").await;
    ana.until_messages(&["Hello Bo", "<b>Hello</b> <img src=x onerror=alert(1)> Ana & all"]).await;
    bo.write("not sent ye").await;

    for page in [&ana, &bo] {
        page.reload().await;
        page.until_messages(&["Hello Bo", "<b>Hello</b> <img src=x onerror=alert(1)> Ana & all"]).await;
        page.until_banner(false).await;
    }
    assert_eq!(bo.value("#message").await, "not sent ye");
    for page in [&ana, &bo] {
        assert_eq!(page.complaints().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_people_chat_in_a_group() {
    let (folder, driver) = (tempfile::tempdir().unwrap(), Driver::start());
    let server = server(&folder);
    let mut pages = Vec::new();
    for (username, name) in [("ana", "Ana Lovelace"), ("bo", "Bo Turing"), ("cy", "Cy Hopper")] {
        let page = Page::open(&driver, server.address).await;
        page.register(username, name).await;
        pages.push(page);
    }
    let [ana, bo, cy] = &pages[..] else { unreachable!("three pages") };

    ana.create_group("Lunch", &["bo", "cy"]).await;
    ana.say("Where shall we go?").await;
    bo.open_conversation("Lunch").await;
    bo.until_messages(&["Where shall we go?"]).await;
    bo.say("Somewhere with a garden").await;
    cy.until_unread("Lunch", 2).await;
    cy.open_conversation("Lunch").await;
    cy.say("I am in").await;
    for page in [ana, bo, cy] {
        page.until_messages(&["Where shall we go?", "Somewhere with a garden", "I am in"]).await;
    }

    // The owner makes an admin; everybody is told.
    ana.click("#open-details").await;
    ana.click("[data-user='bo'] .icon-button").await;
    ana.click_text(".menu-item", "Make an admin").await;
    let told = "return [...document.querySelectorAll('.divider.event')].some((one) => one.textContent === arguments[0])";
    cy.until("the event", told, vec![json!("Ana Lovelace made Bo Turing an admin")]).await;
    ana.until("the role", "return document.querySelector(\"[data-user='bo'] .role\")?.textContent === 'Admin'", vec![]).await;

    for page in [ana, bo, cy] {
        assert_eq!(page.complaints().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_history_comes_while_scrolling_up_and_the_reader_keeps_the_place() {
    let (folder, driver) = (tempfile::tempdir().unwrap(), Driver::start());
    let server = server(&folder);
    let ana = Page::open(&driver, server.address).await;
    ana.register("ana", "Ana Lovelace").await;
    let (bo, other) = (User::register(server.address, "bo").await, User::login(server.address, "ana", PASSWORD).await);
    let conversation = bo.single(&other).await;
    for number in 1..=300 {
        bo.say(&conversation, &format!("number {number}")).await;
    }
    let read = json!({"read_seq": 301});
    other.post(&format!("/conversations/{conversation}/marks"), read).await.expect(200);

    ana.reload().await;
    ana.open_conversation("bo").await;
    ana.until_messages(&["number 299", "number 300"]).await;
    ana.until("the first page", "return document.querySelector('.log').ariaBusy === 'false'", vec![]).await;
    let place = "const log = document.querySelector('.scroller');
        const [rows, text] = [log.querySelectorAll('.message'), (row) => row.querySelector('.text').textContent];
        const top = (row) => Math.round(row.getBoundingClientRect().top);";
    let scroll =
        format!("{place} log.scrollTop = 200; const row = [...rows].find((row) => top(row) > 100); return [rows.length, text(row), top(row)];");
    let before = ana.run(&scroll, vec![]).await;
    ana.until("older messages", &format!("{place} return rows.length > arguments[0]"), vec![before[0].clone()]).await;
    let same = format!("{place} return top([...rows].find((row) => text(row) === arguments[0]))");
    let moved = ana.run(&same, vec![before[1].clone()]).await.as_i64().unwrap() - before[2].as_i64().unwrap();
    assert!(moved.abs() <= 2, "the message moved by {moved} pixels");

    let first = format!("{place} log.scrollTop = 0; return text(rows[0]) === 'number 1'");
    ana.until("the first message", &first, vec![]).await;
    let shown = ana.messages().await;
    assert!(shown.len() < 300, "the page does not grow with the history: {}", shown.len());
    let expected: Vec<String> = (1..=shown.len()).map(|number| format!("number {number}")).collect();
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_written_while_the_server_was_dead_go_out_once_and_a_draft_stays() {
    let (folder, driver) = (tempfile::tempdir().unwrap(), Driver::start());
    let mut server = server(&folder);
    let (ana, bo) = (Page::open(&driver, server.address).await, Page::open(&driver, server.address).await);
    ana.register("ana", "Ana Lovelace").await;
    bo.register("bo", "Bo Turing").await;
    ana.start_chat("bo").await;
    ana.say("before").await;
    bo.open_conversation("Ana Lovelace").await;
    ana.until_state("before", "read").await;

    server.kill();
    ana.until_banner(true).await;
    ana.say("one").await;
    ana.say("two").await;
    ana.until_state("two", "sending").await;
    ana.write("a draft").await;
    bo.say("from the other side").await;

    let server = server.kill_and_restart();
    ana.until_state("two", "read").await;
    ana.until_banner(false).await;
    for page in [&ana, &bo] {
        page.until("all four", "return document.querySelectorAll('.message .text').length === 4", vec![]).await;
        let mut shown = page.messages().await;
        assert_eq!(shown.iter().filter(|text| *text != "from the other side").collect::<Vec<_>>(), ["before", "one", "two"]);
        shown.sort();
        assert_eq!(shown, ["before", "from the other side", "one", "two"]);
    }
    assert_eq!(ana.value("#message").await, "a draft");

    // What the server holds is what was written, each once, under seqs without a gap.
    let reader = User::login(server.address, "bo", PASSWORD).await;
    let conversation = ana.run("return document.querySelector('#thread').dataset.conversation", vec![]).await;
    let stored = reader.read_all(conversation.as_str().unwrap()).await;
    let mut texts: Vec<&str> = stored.iter().filter_map(|message| message["text"].as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["before", "from the other side", "one", "two"]);
    assert_eq!(stored.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);

    ana.reload().await;
    ana.until("all four", "return document.querySelectorAll('.message .text').length === 4", vec![]).await;
    assert_eq!(ana.value("#message").await, "a draft");
}
