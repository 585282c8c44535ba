//! One person at the web chat: a browser of its own, and what a person does there.

use std::{net::SocketAddr, time::Duration};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element, error::CmdError, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Driver;
use crate::client::{PASSWORD, PATIENCE};

/// The Enter key (WebDriver, section 17.4.2).
const ENTER: &str = "\u{E007}";

#[derive(Debug)]
pub struct Page {
    client: Client,
    address: SocketAddr,
}

/// A command of Chromium's own, or of its driver, below the session.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Page {
    /// Opens the chat of the server at `address` in a new browser.
    pub async fn open(driver: &Driver, address: SocketAddr) -> Page {
        let capabilities = json!({
            "goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1440,900"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().expect("an object").clone())
            .connect(&format!("http://{}", driver.address))
            .await
            .expect("chromedriver opens a browser");
        let page = Page { client, address };
        page.visit("").await;
        page
    }

    /// Goes to an address of the chat; the part behind `#`.
    pub async fn visit(&self, hash: &str) {
        self.client.goto(&format!("http://{}/#{hash}", self.address)).await.expect("the page loads");
    }

    pub async fn reload(&self) {
        self.client.refresh().await.expect("the page loads again");
    }

    // ---- What a person does

    /// Creates an account and is signed in with it.
    pub async fn register(&self, username: &str, display_name: &str) {
        self.click("#tab-register").await;
        self.fill("#display-name", display_name).await;
        self.sign_in(username, PASSWORD).await;
        self.element(".sidebar").await;
    }

    /// Fills in the form that is shown and sends it.
    pub async fn sign_in(&self, username: &str, password: &str) {
        self.fill("#username", username).await;
        self.fill("#password", password).await;
        self.click("#submit").await;
    }

    /// Begins a 1:1 with somebody, by user name.
    pub async fn start_chat(&self, username: &str) {
        self.click("#create").await;
        self.click_text(".menu-item", "New chat").await;
        self.fill("#find-user", username).await;
        self.click_text("#new-chat button", "Start chat").await;
        self.element("#message").await;
    }

    /// Makes a group and is in it.
    pub async fn create_group(&self, name: &str, usernames: &[&str]) {
        self.click("#create").await;
        self.click_text(".menu-item", "New group").await;
        self.fill("#group-name", name).await;
        for (at, username) in usernames.iter().enumerate() {
            self.fill("#add-member", username).await;
            self.click_text("#new-group button", "Add").await;
            self.until("a member is chosen", "return document.querySelectorAll('.chip').length > arguments[0]", vec![json!(at)]).await;
        }
        self.click_text("#new-group button", "Create group").await;
        self.until_title(name).await;
    }

    /// Opens a conversation from the list.
    pub async fn open_conversation(&self, title: &str) {
        self.click_text(".row", title).await;
        self.until_title(title).await;
    }

    /// Writes into the line at the bottom.
    pub async fn write(&self, text: &str) {
        self.fill("#message", text).await;
    }

    /// Writes a message and sends it.
    pub async fn say(&self, text: &str) {
        self.write(&format!("{text}{ENTER}")).await;
    }

    // ---- What a person sees

    /// The texts of the messages that are shown, in order.
    pub async fn messages(&self) -> Vec<String> {
        let texts = self.run("return [...document.querySelectorAll('.message .text')].map((text) => text.textContent)", vec![]).await;
        serde_json::from_value(texts).expect("texts")
    }

    /// Waits until these are the texts of the last messages, each there once.
    pub async fn until_messages(&self, texts: &[&str]) {
        let script = "const shown = [...document.querySelectorAll('.message .text')].map((text) => text.textContent);
            return JSON.stringify(shown.slice(-arguments[0].length)) === JSON.stringify(arguments[0]);";
        self.until(&format!("the messages {texts:?}"), script, vec![json!(texts)]).await;
        let shown = self.messages().await;
        for text in texts {
            assert_eq!(shown.iter().filter(|one| one == text).count(), 1, "{text:?} is there once: {shown:?}");
        }
    }

    /// Waits until an own message is in this state: `sending`, `stored`, `delivered`, `read` or `failed`.
    pub async fn until_state(&self, text: &str, state: &str) {
        let script = "return [...document.querySelectorAll('.message.own')].some((one) =>
            one.querySelector('.text')?.textContent === arguments[0] && one.dataset.state === arguments[1]);";
        self.until(&format!("{text:?} is {state}"), script, vec![json!(text), json!(state)]).await;
    }

    /// Waits until a conversation of the list has so many unread messages.
    pub async fn until_unread(&self, title: &str, unread: usize) {
        let script = "const row = [...document.querySelectorAll('.row')].find((row) => row.querySelector('.row-title').textContent === arguments[0]);
            return row !== undefined && parseInt(row.querySelector('.badge')?.textContent ?? '0') === arguments[1];";
        self.until(&format!("{title:?} has {unread} unread"), script, vec![json!(title), json!(unread)]).await;
    }

    /// Waits until the open conversation has this name.
    pub async fn until_title(&self, title: &str) {
        self.until(
            &format!("{title:?} is open"),
            "return document.querySelector('.thread-names h2')?.textContent === arguments[0]",
            vec![json!(title)],
        )
        .await;
    }

    /// Waits until the connection's banner is there, or away.
    pub async fn until_banner(&self, shown: bool) {
        self.until(&format!("banner: {shown}"), "return document.querySelector('.banner').hidden !== arguments[0]", vec![json!(shown)]).await;
    }

    /// The value of an input.
    pub async fn value(&self, selector: &str) -> String {
        let value = self.run("return document.querySelector(arguments[0]).value", vec![json!(selector)]).await;
        value.as_str().unwrap_or_default().to_owned()
    }

    /// What the browser complained of: errors of scripts and of the content policy.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.vendor("se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().expect("a log").iter();
        entries.filter(|entry| entry["source"] == "javascript" || entry["source"] == "security").map(|entry| entry["message"].to_string()).collect()
    }

    /// How the page is looked at: a phone has a touch screen.
    pub async fn look(&self, width: u32, height: u32, dark: bool) {
        let phone = width < 720;
        self.devtools("Emulation.setDeviceMetricsOverride", json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})).await;
        self.devtools("Emulation.setTouchEmulationEnabled", json!({"enabled": phone})).await;
        self.devtools("Emulation.setScrollbarsHidden", json!({"hidden": phone})).await;
        let scheme = if dark { "dark" } else { "light" };
        self.devtools("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]})).await;
    }

    /// The page as a PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.client.screenshot().await.expect("a screenshot")
    }

    // ---- How it is done

    /// Runs a function's body in the page.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.expect("the script runs")
    }

    /// Waits until a script answers `true`.
    pub async fn until(&self, what: &str, script: &str, arguments: Vec<Value>) {
        let began = Instant::now();
        while self.run(script, arguments.clone()).await != json!(true) {
            if began.elapsed() > PATIENCE {
                let text = self.run("return document.body.innerText", vec![]).await;
                panic!("waited in vain for: {what}. The page says:\n{}", text.as_str().unwrap_or_default());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn element(&self, selector: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(selector));
        wait.await.unwrap_or_else(|error| panic!("no {selector}: {error}"))
    }

    pub async fn click(&self, selector: &str) {
        self.act(selector, async |element| element.click().await).await;
    }

    /// Does something to an element. The page may draw it anew between finding and touching it, as it may under a person's
    /// hand: then the new one is touched.
    async fn act(&self, selector: &str, act: impl AsyncFn(&Element) -> Result<(), CmdError>) {
        let began = Instant::now();
        while let Err(error) = act(&self.element(selector).await).await {
            let drawn_anew = error.to_string().contains("stale element");
            assert!(drawn_anew && began.elapsed() < PATIENCE, "{selector} cannot be used: {error}");
        }
    }

    /// Clicks the first element of this kind that holds the text.
    pub async fn click_text(&self, selector: &str, text: &str) {
        let script = "const found = [...document.querySelectorAll(arguments[0])].find((one) => one.textContent.includes(arguments[1]));
            found?.click();
            return found !== undefined;";
        self.until(&format!("{selector} with {text:?}"), script, vec![json!(selector), json!(text)]).await;
    }

    async fn fill(&self, selector: &str, text: &str) {
        self.act(selector, async |element| element.send_keys(text).await).await;
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        self.vendor("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await;
    }

    async fn vendor(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Vendor { path, body }).await.expect("the driver knows the command")
    }
}
