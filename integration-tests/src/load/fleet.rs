//! What runs: a broker, Redis, a trainer, and two instances of every other service.

use std::time::Duration;

use crate::harness::{Service, Stack, process::Process, service::Ports, stack::get, wait::check, wait_until};

use super::schedule::INSTANCES;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// A busy machine of two cores must not look like a consumer that died.
const CONSUMER: &str = "session.timeout.ms=6000,heartbeat.interval.ms=1000";

/// One process that is killed and started again on the same ports.
pub struct Instance {
    pub name: String,
    pub service: Service,
    ports: Ports,
    process: Option<Process>,
    launched: u32,
}

pub struct Fleet {
    pub stack: Stack,
    instances: Vec<Instance>,
}

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub async fn start() -> Self {
        let mut stack = Stack::new("load");
        stack.start(&[Service::Trainer]).await;
        let services = [Service::Collector, Service::Cleaner, Service::FeatureStore, Service::Scorer];
        let of = |service: Service| {
            (0..INSTANCES).map(move |n| Instance {
                name: format!("{}-{}", service.name(), n + 1),
                service,
                ports: Ports::free(),
                process: None,
                launched: 0,
            })
        };
        let mut instances: Vec<Instance> = services.into_iter().flat_map(of).collect();
        for instance in &mut instances {
            instance.launch(&stack);
        }
        for instance in &mut instances {
            wait_until(&format!("{} to be ready", instance.name), READY_WITHIN, async || {
                if let Some(how) = instance.ended() {
                    panic!("{} ended before it was ready: {how}", instance.name);
                }
                instance.ready()
            })
            .await;
        }
        Self { stack, instances }
    }

    pub fn instance(&mut self, service: Service, n: usize) -> &mut Instance {
        self.instances
            .iter_mut()
            .filter(|instance| instance.service == service)
            .nth(n)
            .expect("every service has its instances")
    }

    /// Started again with the stack's configuration.
    pub fn launch(&mut self, service: Service, n: usize) {
        let place = self.instances.iter().position(|i| i.service == service).expect("every service has instances") + n;
        self.instances[place].launch(&self.stack);
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.instances.iter_mut()
    }

    /// Name and address of the scorers.
    pub fn scorers(&self) -> Vec<(String, String)> {
        self.doors(Service::Scorer)
    }

    /// Name and gRPC address of a service's instances.
    pub fn doors(&self, service: Service) -> Vec<(String, String)> {
        let of = |instance: &Instance| (instance.name.clone(), format!("http://127.0.0.1:{}", instance.ports.grpc));
        self.instances.iter().filter(|instance| instance.service == service).map(of).collect()
    }
}

impl Instance {
    fn launch(&mut self, stack: &Stack) {
        let Ports { grpc, http, admin } = self.ports;
        let mut command = stack.command(self.service);
        command
            .env("RAPPORT_GRPC_ADDR", format!("127.0.0.1:{grpc}"))
            .env("RAPPORT_ADMIN_ADDR", format!("127.0.0.1:{admin}"))
            // The services' own default, where the tests are in more of a hurry.
            .env("RAPPORT_FLUSH_AGE", "5s");
        match self.service {
            Service::Collector => {
                command.env("RAPPORT_HTTP_ADDR", format!("127.0.0.1:{http}"));
            }
            Service::Cleaner | Service::FeatureStore => {
                command.env("RAPPORT_INSTANCE_ID", &self.name).env("RAPPORT_KAFKA_SETTINGS", CONSUMER);
            }
            Service::Scorer | Service::Trainer => {}
        }
        self.launched += 1;
        let log = stack.folder().join("logs").join(format!("{}.{}.log", self.name, self.launched));
        self.process = Some(Process::start(&self.name, &mut command, log));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn ready(&self) -> Result<(), String> {
        let (status, body) = get(&format!("http://127.0.0.1:{}/readyz", self.ports.admin))?;
        check(status == 200, || format!("{status}: {body}"))
    }

    /// How it ended, when it ended and nobody killed it.
    pub fn ended(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.ended()?;
        Some(format!("{status}\n{}", process.log_tail(5)))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.instances.iter_mut().for_each(Instance::kill);
    }
}
