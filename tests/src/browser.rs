//! The web chat in real browsers: headless Chromium, driven through a chromedriver that the tests start.
//!
//! Needs the Debian packages `chromium` and `chromium-driver`; without them the tests fail and say so.

mod chat;
mod page;
mod screenshots;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::process::free_port;

/// Longest wait for the driver to start, and for it to end its browsers.
const DRIVER_PATIENCE: Duration = Duration::from_secs(20);

/// A running chromedriver; it and its browsers end when dropped.
#[derive(Debug)]
struct Driver {
    address: SocketAddr,
    child: Child,
}

impl Driver {
    fn start() -> Driver {
        for (program, package) in [("chromium", "chromium"), ("chromedriver", "chromium-driver")] {
            let found = std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|path| path.join(program).is_file()));
            assert!(found, "the browser tests need `{program}`: install the Debian package {package}");
        }
        let address = free_port();
        let child = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("chromedriver starts");
        let driver = Driver { address, child };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < DRIVER_PATIENCE, "chromedriver does not listen on {address}");
            std::thread::sleep(Duration::from_millis(50));
        }
        driver
    }

    /// Asks the driver to end, which ends its browsers; a killed one would leave them behind.
    fn shut_down(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(DRIVER_PATIENCE))?;
        write!(stream, "GET /shutdown HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.shut_down();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
