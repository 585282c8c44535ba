//! Renews the pictures in docs/screenshots: every state of the page, on a phone and a desktop, light and dark.
//!
//! `cargo test -p gochat-tests screenshots -- --ignored`

use std::{collections::HashMap, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{Driver, page::Page};
use crate::{
    client::{PASSWORD, User, new_id},
    process::Process,
    sandbox::provision,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/screenshots");
/// Width and height of a desktop and of a phone.
const SIZES: [(u32, u32); 2] = [(1440, 900), (390, 844)];
/// Colours that a picture keeps: text on plain surfaces needs few, and the files stay small.
const COLOURS_MAX: usize = 64;
/// People who write, beside the one who looks.
const PEOPLE: usize = 200;

const FIRST_NAMES: [&str; 20] = [
    "Amara", "Bela", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hana", "Ivo", "Jun", "Katya", "Luis", "Mira", "Noah", "Olga", "Priya", "Quentin",
    "Rosa", "Sami", "Tove",
];
const LAST_NAMES: [&str; 10] = ["Abebe", "Brandt", "Costa", "Duarte", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen"];
const LINES: [&str; 8] = [
    "See you at the station at nine.",
    "I have sent you the figures, the second sheet is new.",
    "Thank you, that helped a lot!",
    "Can we move it to Thursday?",
    "The keys are with the neighbours.",
    "Yes",
    "That was the best concert in years. We should go again in spring.",
    "Who brings the cake?",
];
const LONG_NAME: &str = "Association for the Preservation of Lighthouses, Harbour Cranes and Old Ferries of the North";
const LONG_PERSON: &str = "Maximiliana-Theodora Featherstonehaugh-Cholmondeley von und zu Langenscheidt";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "renews docs/screenshots"]
async fn screenshots() {
    std::fs::create_dir_all(FOLDER).unwrap();
    let (folder, driver) = (tempfile::tempdir().unwrap(), Driver::start());
    let mut server = Process::start(folder.path(), &[("GOCHAT_PASSWORDS_ITERATIONS", "1000")]);
    let people = people(&server).await;

    let page = Page::open(&driver, server.address).await;
    shoot(&page, "sign-in").await;
    page.sign_in("ana", "not the password").await;
    page.until("the refusal", "return document.querySelector('.error-line').textContent !== ''", vec![]).await;
    shoot(&page, "sign-in-error").await;
    page.reload().await;
    page.register("ana", "Ana Lovelace").await;
    shoot(&page, "empty").await;

    let ana = User::login(server.address, "ana", PASSWORD).await;
    many_conversations(&ana, &people).await;
    let crowd = group_of_99(&ana, &people).await;
    let long = long_texts(&ana, &people).await;
    let chat = a_good_talk(&ana, &people).await;
    page.until("200 conversations", "return document.querySelectorAll('.row').length >= 200", vec![]).await;
    shoot(&page, "list-200").await;
    page.visit(&format!("/c/{chat}")).await;
    shoot(&page, "chat").await;
    page.visit(&format!("/c/{crowd}/details")).await;
    page.until("99 members", "return document.querySelectorAll('.members > li').length === 99", vec![]).await;
    shoot(&page, "group-99").await;
    page.visit(&format!("/c/{long}")).await;
    page.until_title(LONG_NAME).await;
    shoot(&page, "long").await;

    let loading = Page::open(&driver, server.address).await;
    loading.visit(&format!("/c/{chat}")).await;
    withhold(&loading, json!({"list": null})).await;
    loading.sign_in("ana", PASSWORD).await;
    shoot(&loading, "loading").await;

    let broken = Page::open(&driver, server.address).await;
    broken.visit(&format!("/c/{chat}")).await;
    withhold(&broken, json!({"history": "UNAVAILABLE", "send": "DENIED"})).await;
    broken.sign_in("ana", PASSWORD).await;
    broken.until("the refusal", "return document.querySelector('.history-failed') !== null", vec![]).await;
    broken.say("Does this arrive?").await;
    broken.until_state("Does this arrive?", "failed").await;
    shoot(&broken, "error").await;

    page.visit(&format!("/c/{chat}")).await;
    page.until("the talk", "return document.querySelectorAll('.message').length > 5", vec![]).await;
    server.kill();
    page.until_banner(true).await;
    page.say("I am on the train, the connection comes and goes.").await;
    page.write("And then we could").await;
    shoot(&page, "offline").await;
}

/// Takes the page in both sizes and both schemes.
async fn shoot(page: &Page, scene: &str) {
    for (width, height) in SIZES {
        for scheme in ["light", "dark"] {
            page.look(width, height, scheme == "dark").await;
            // Rows that come into view have their place after the second paint.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let file = Path::new(FOLDER).join(format!("{scene}-{width}-{scheme}.png"));
            std::fs::write(file, small(&page.screenshot().await)).unwrap();
        }
    }
    page.look(SIZES[0].0, SIZES[0].1, false).await;
}

/// Keeps requests of these types from the server; they are answered with the code that is given, or never.
async fn withhold(page: &Page, codes: Value) {
    let script = "const [codes] = arguments;
        window.WebSocket = class extends WebSocket {
            send(text) {
                const { type, id } = JSON.parse(text);
                if (!(type in codes)) return super.send(text);
                const data = JSON.stringify({ type: 'error', id, code: codes[type], message: 'no' });
                if (codes[type]) setTimeout(() => this.onmessage({ data }), 0);
            }
        };";
    page.run(script, vec![codes]).await;
}

/// Many users with names, the first of them with a very long one.
async fn people(server: &Process) -> Vec<User> {
    let made = provision(server.admin, &server.admin_token(), json!({"users": PEOPLE, "prefix": "user"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut people = Vec::new();
    for (at, user) in made["users"].as_array().unwrap().iter().enumerate() {
        let name = if at == 0 { LONG_PERSON.to_owned() } else { format!("{} {}", FIRST_NAMES[at % 20], LAST_NAMES[at / 20]) };
        let user = User {
            address: server.address,
            id: text(&user["id"]),
            username: text(&user["username"]),
            password: String::new(),
            device: text(&user["device_id"]),
            token: text(&user["access_token"]),
            refresh: String::new(),
        };
        user.patch("/users/me", json!({"display_name": name})).await.expect(200);
        people.push(user);
    }
    people
}

async fn many_conversations(ana: &User, people: &[User]) {
    for (at, person) in people.iter().enumerate() {
        let conversation = person.single(ana).await;
        for _ in 0..=(at % 3) {
            person.say(&conversation, LINES[at % LINES.len()]).await;
        }
        if at % 4 != 3 {
            let head = ana.say(&conversation, LINES[(at + 3) % LINES.len()]).await["seq"].clone();
            ana.post(&format!("/conversations/{conversation}/marks"), json!({"read_seq": head})).await.expect(200);
            let mark = if at % 2 == 0 { "read_seq" } else { "delivered_seq" };
            person.post(&format!("/conversations/{conversation}/marks"), json!({mark: head})).await.expect(200);
        }
    }
}

async fn group_of_99(ana: &User, people: &[User]) -> String {
    let members: Vec<&User> = people[2..100].iter().collect();
    let group = ana.group("Friends of the old mill", &members).await;
    let description = "Everybody who helps to bring the mill at the river back to work. We meet on the first Saturday of each month.";
    ana.patch(&format!("/groups/{group}"), json!({"description": description})).await.expect(200);
    for member in [3, 41] {
        ana.patch(&format!("/groups/{group}/members/{}", people[member].id), json!({"role": "admin"})).await.expect(204);
    }
    for (at, line) in LINES.iter().enumerate() {
        people[3 + at * 11].say(&group, line).await;
    }
    group
}

async fn long_texts(ana: &User, people: &[User]) -> String {
    let group = people[0].group(LONG_NAME, &[ana, &people[1]]).await;
    people[0].say(&group, &"Dear all, this is a message that does not come to its end soon. ".repeat(8)).await;
    people[1].say(&group, &"Donaudampfschifffahrtsgesellschaftskapitän".repeat(6)).await;
    let address = format!("https://example.org/{}", "a-very-long-path/".repeat(9));
    ana.say(&group, &format!("One line\nand another\n\n    <b>not bold</b> & an address: {address}")).await;
    let file = json!({"url": "https://example.org/minutes.pdf", "name": format!("{}.pdf", "Minutes of the meeting ".repeat(6).trim_end()), "bytes": 482_133});
    let body = json!({"client_msg_id": new_id(), "kind": "file", "data": file, "reply_to": 2});
    people[0].post(&format!("/conversations/{group}/messages"), body).await.expect(201);
    group
}

async fn a_good_talk(ana: &User, people: &[User]) -> String {
    let grace = &people[6];
    let chat = ana.single(grace).await;
    for (writer, text) in [
        (grace, "Morning! Are you still coming to the workshop on Saturday?"),
        (ana, "Of course. I have the tickets already."),
        (ana, "Shall I bring the projector?"),
        (grace, "Yes please. The room has a screen but nothing to fill it with."),
        (grace, "Here is the plan: https://example.org/workshop"),
    ] {
        writer.say(&chat, text).await;
    }
    let file = json!({"url": "https://example.org/timetable.pdf", "name": "Timetable.pdf", "bytes": 48_200});
    grace.post(&format!("/conversations/{chat}/messages"), json!({"client_msg_id": new_id(), "kind": "file", "data": file})).await.expect(201);
    let projector = ana.read_all(&chat).await.iter().find(|one| one["text"] == "Shall I bring the projector?").unwrap()["seq"].clone();
    let answer = json!({"client_msg_id": new_id(), "text": "And the long cable, if you have one", "reply_to": projector});
    grace.post(&format!("/conversations/{chat}/messages"), answer).await.expect(201);
    let head = ana.say(&chat, "I do, ten metres. See you on Saturday!").await["seq"].clone();
    grace.post(&format!("/conversations/{chat}/marks"), json!({"read_seq": head})).await.expect(200);
    ana.post(&format!("/conversations/{chat}/marks"), json!({"read_seq": head})).await.expect(200);
    chat
}

/// The same picture with the colours that it has most, as a PNG with a palette.
fn small(picture: &[u8]) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(picture));
    decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let colours: Vec<[u8; 3]> = pixels[..frame.buffer_size()].chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();

    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    for colour in &colours {
        *counts.entry(*colour).or_default() += 1;
    }
    let mut by_count: Vec<_> = counts.iter().map(|(colour, count)| (*count, *colour)).collect();
    by_count.sort_unstable_by(|a, b| b.cmp(a));
    let palette: Vec<[u8; 3]> = by_count.iter().take(COLOURS_MAX).map(|(_, colour)| *colour).collect();
    let distance = |a: &[u8; 3], b: &[u8; 3]| a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum::<u32>();
    let nearest: HashMap<[u8; 3], u8> =
        counts.keys().map(|colour| (*colour, (0..palette.len()).min_by_key(|at| distance(&palette[*at], colour)).unwrap() as u8)).collect();

    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, frame.width, frame.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(png::Compression::High);
    // Neighbouring indices of a palette have nothing in common that a filter could use.
    encoder.set_filter(png::Filter::NoFilter);
    let indices: Vec<u8> = colours.iter().map(|colour| nearest[colour]).collect();
    encoder.write_header().unwrap().write_image_data(&indices).unwrap();
    out
}
