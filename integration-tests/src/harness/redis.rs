//! One real Redis.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use super::{
    ports,
    process::{Process, Signal},
    reaper, wait_until_blocking,
};

pub struct RedisServer {
    folder: PathBuf,
    port: u16,
    process: Mutex<Process>,
}

impl RedisServer {
    /// The one that the tests of this binary share, each under its own key prefix.
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<RedisServer>> = LazyLock::new(|| Arc::new(RedisServer::start("redis")));
        Arc::clone(&SHARED)
    }

    /// One of its own, for a test that stops it.
    pub fn start(name: &str) -> Self {
        let folder = super::stack::scratch(name);
        let port = ports::free();
        let server = Self { process: Mutex::new(launch(&folder, port)), folder, port };
        server.wait_ready();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().pid()
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn freeze(&self) {
        self.process.lock().unwrap().signal(Signal::Stop);
    }

    pub fn thaw(&self) {
        self.process.lock().unwrap().signal(Signal::Continue);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.lock().unwrap().kill();
    }

    /// Again on the same port, with what it had written to its append-only file.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill();
        *process = launch(&self.folder, self.port);
        drop(process);
        self.wait_ready();
    }

    fn wait_ready(&self) {
        let client = ::redis::Client::open(self.url()).expect("a loopback address is a valid URL");
        wait_until_blocking("Redis to answer PING", Duration::from_secs(10), || {
            let mut connection =
                client.get_connection_with_timeout(Duration::from_millis(500)).map_err(|e| e.to_string())?;
            ::redis::cmd("PING").query::<String>(&mut connection).map_err(|e| e.to_string())
        });
    }

    /// A client for looking into it.
    pub fn client(&self) -> ::redis::Client {
        ::redis::Client::open(self.url()).expect("a loopback address is a valid URL")
    }
}

fn launch(folder: &PathBuf, port: u16) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", "no", "--dir"]).arg(folder);
    Process::start("redis", &mut command, folder.join("redis.log"))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        reaper::remove(&self.folder);
    }
}
