//! Does what the schedule says, and writes down when.

use std::time::{Duration, Instant};

use super::{
    checker::{Kill, Swap},
    fleet::Fleet,
    prepare::{World, promote},
    schedule::{Act, Step},
};
use crate::{chaos::log::Log, harness::Service};

const TICK: Duration = Duration::from_millis(50);
/// An instance that was started again is ready within this.
const BACK_WITHIN: Duration = Duration::from_secs(45);

/// What happened.
#[derive(Debug, Default)]
pub struct Inflicted {
    pub planned: usize,
    pub kills: Vec<Kill>,
    pub swaps: Vec<Swap>,
    /// Instance, and from its start to ready.
    pub back_after: Vec<(String, Duration)>,
    pub troubles: Vec<String>,
}

/// An instance that is away, or starting.
struct Away {
    service: Service,
    instance: usize,
    launch_at: Instant,
    launched: Option<Instant>,
}

pub struct Faults<'a> {
    fleet: &'a mut Fleet,
    world: &'a World,
    log: &'a Log,
    began: Instant,
    away: Vec<Away>,
    done: Inflicted,
}

impl<'a> Faults<'a> {
    /// Times count from `began`.
    pub fn new(fleet: &'a mut Fleet, world: &'a World, log: &'a Log, began: Instant) -> Self {
        Self { fleet, world, log, began, away: Vec::new(), done: Inflicted::default() }
    }

    /// Until the time is over and everything that was killed is back.
    pub async fn run(mut self, steps: Vec<Step>, lasts: Duration) -> Inflicted {
        self.done.planned = steps.iter().filter(|step| matches!(step.act, Act::Kill { .. })).count();
        let mut steps = steps.into_iter().peekable();
        while self.began.elapsed() < lasts || !self.away.is_empty() {
            while let Some(step) = steps.next_if(|step| step.at <= self.began.elapsed()) {
                self.act(step).await;
            }
            self.bring_back();
            self.look_for_the_dead();
            tokio::time::sleep(TICK).await;
        }
        self.done
    }

    async fn act(&mut self, step: Step) {
        match step.act {
            Act::Kill { service, instance, away } => {
                let name = self.fleet.instance(service, instance).name.clone();
                let at = self.began.elapsed();
                self.fleet.instance(service, instance).kill();
                self.log.line(&format!("killed {name}; started again in {:.1} s", away.as_secs_f64()));
                self.done.kills.push(Kill { instance: name, at });
                self.away.push(Away { service, instance, launch_at: Instant::now() + away, launched: None });
            }
            Act::Swap => {
                // The first one is live at the beginning.
                let version = ((self.done.swaps.len() + 1) % 2) as u8;
                let at = self.began.elapsed();
                match promote(&self.fleet.stack, &self.world.versions[usize::from(version)]).await {
                    Ok(()) => self.done.swaps.push(Swap { at, version }),
                    Err(why) => self.done.troubles.push(format!("the trainer does not promote: {why}")),
                }
                self.log.line(&format!("version {} goes live", version + 1));
            }
        }
    }

    fn bring_back(&mut self) {
        let mut kept = Vec::new();
        for mut away in std::mem::take(&mut self.away) {
            match away.launched {
                None if away.launch_at <= Instant::now() => {
                    self.fleet.launch(away.service, away.instance);
                    away.launched = Some(Instant::now());
                    kept.push(away);
                }
                None => kept.push(away),
                Some(launched) => {
                    let instance = self.fleet.instance(away.service, away.instance);
                    match instance.ready() {
                        Ok(()) => self.done.back_after.push((instance.name.clone(), launched.elapsed())),
                        Err(why) if launched.elapsed() > BACK_WITHIN => {
                            let trouble =
                                format!("{} is not ready {BACK_WITHIN:?} after its start: {why}", instance.name);
                            self.done.troubles.push(trouble);
                        }
                        Err(_) => kept.push(away),
                    }
                }
            }
        }
        self.away = kept;
    }

    /// One that ended and was not killed is written down, and started again.
    fn look_for_the_dead(&mut self) {
        let mut dead = Vec::new();
        for instance in self.fleet.all() {
            if let Some(how) = instance.ended() {
                self.done.troubles.push(format!("{} ended by itself: {how}", instance.name));
                instance.kill();
                dead.push((instance.service, instance.name.ends_with("-2")));
            }
        }
        for (service, second) in dead {
            self.fleet.launch(service, usize::from(second));
        }
    }
}
