//! A real server that speaks S3: the Versity gateway over a folder, as `deploy/dev/setup.sh --tests` installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use super::{others::cache, ports, process::Process, reaper, wait_until_blocking};

const BUCKET: &str = "logs";
const KEY: &str = "rapport-test";
const SECRET: &str = "a secret of the tests";

pub struct S3Server {
    folder: PathBuf,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl S3Server {
    /// With an empty bucket; `None` where the gateway is not installed.
    pub fn start(name: &str) -> Option<Self> {
        if !gateway().is_file() {
            eprintln!("skipped: there is no {}; deploy/dev/setup.sh --tests builds it", gateway().display());
            return None;
        }
        let folder = super::stack::scratch(name);
        for part in [Path::new("root").join(BUCKET), "metadata".into()] {
            fs::create_dir_all(folder.join(part)).expect("scratch is writable");
        }
        let server = Self { folder, port: ports::free(), process: Mutex::new(None) };
        server.restart();
        Some(server)
    }

    /// A place in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the files of that place lie, behind the gateway.
    pub fn behind(&self, prefix: &str) -> PathBuf {
        self.folder.join("root").join(BUCKET).join(prefix)
    }

    /// What a client must know.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// `kill -9`.
    pub fn kill(&self) {
        drop(self.process.lock().unwrap().take());
    }

    /// Again on the same port, with everything that was acknowledged.
    pub fn restart(&self) {
        self.kill();
        let mut command = Command::new(gateway());
        command.env("ROOT_ACCESS_KEY", KEY).env("ROOT_SECRET_KEY", SECRET);
        command.args(["--quiet", "--port", &format!("127.0.0.1:{}", self.port), "posix", "--sidecar"]);
        command.arg(self.folder.join("metadata")).arg(self.folder.join("root"));
        let process = Process::start("versitygw", &mut command, self.folder.join("versitygw.log"));
        *self.process.lock().unwrap() = Some(process);
        wait_until_blocking("the S3 gateway to answer", Duration::from_secs(20), || {
            // Nobody in particular is refused, and hears so.
            super::stack::get(&self.endpoint()).map(drop)
        });
    }
}

fn gateway() -> PathBuf {
    cache().join("bin/versitygw")
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
        reaper::remove(&self.folder);
    }
}
