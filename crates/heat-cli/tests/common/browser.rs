//! A real browser without a window, driven through chromedriver's WebDriver
//! interface.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    /// Address of the session.
    session: String,
}

/// Chromium with an empty profile in `directory`; `None`, and a word about it,
/// where there is no chromedriver.
pub fn browser(test: &str, directory: &Path) -> Option<Browser> {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut driver = match command.spawn() {
        Ok(driver) => driver,
        Err(error) => {
            // Past the harness, which keeps what passing tests print to itself.
            let _ = std::io::stderr().write_fmt(format_args!(
                "SKIPPED {test}: chromedriver cannot be started: {error}\n"
            ));
            return None;
        }
    };
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port: u16 = lines
        .find_map(|line| {
            let line = line.unwrap();
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        })
        .expect("chromedriver says its port");
    // It must be able to go on writing.
    std::thread::spawn(move || lines.for_each(drop));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("http://127.0.0.1:{port}/session");
    let mut browser = Browser { driver, agent, session: address };
    let profile = directory.join("profile");
    let args = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        &format!("--user-data-dir={}", profile.display()),
    ];
    let wanted = json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": args},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }}});
    let made = browser.post("", &wanted);
    let id = made["sessionId"].as_str().expect("a session");
    browser.session = format!("{}/{id}", browser.session);
    Some(browser)
}

impl Browser {
    /// The value that a command answers with.
    fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).unwrap_or_else(|text| panic!("{path}: {text}"))
    }

    fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(format!("{}{path}", self.session));
        let mut response = request.content_type("application/json").send(body.to_string()).unwrap();
        let status = response.status();
        let text = response.body_mut().with_config().limit(1 << 28).read_to_string().unwrap();
        match status.is_success() {
            true => Ok(serde_json::from_str::<Value>(&text).unwrap()["value"].take()),
            false => Err(text),
        }
    }

    pub fn open(&self, file: &Path) {
        let address = format!("file://{}", file.canonicalize().unwrap().display());
        self.post("/url", &json!({ "url": address }));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    pub fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.post(&format!("/element/{id}/click"), &json!({}));
    }

    pub fn width(&self, pixels: u32) {
        let size = json!({"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        let cmd = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size});
        self.post("/goog/cdp/execute", &cmd);
    }

    pub fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}]);
        let params = json!({"features": features});
        self.post(
            "/goog/cdp/execute",
            &json!({"cmd": "Emulation.setEmulatedMedia", "params": params}),
        );
    }

    /// The console's messages since the last call.
    pub fn console(&self) -> Vec<Value> {
        self.post("/se/log", &json!({"type": "browser"})).as_array().unwrap().clone()
    }

    /// Addresses asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "performance"}));
        let messages = log.as_array().unwrap().iter().map(|entry| {
            serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap()
        });
        let sent = messages.filter(|m| m["message"]["method"] == "Network.requestWillBeSent");
        sent.map(|m| m["message"]["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The page as PDF, in base64.
    pub fn print(&self) -> String {
        // It is given ten seconds, which a busy machine may need longer than.
        let printed = (0..5).find_map(|_| self.try_post("/print", &json!({})).ok());
        printed.expect("a print").as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
