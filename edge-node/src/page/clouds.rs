//! Which clouds answer: each is asked now and then while somebody looks, beside the simulated link.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cleave_shared::{
    config::{Config, EdgeConfig},
    link::{Link, Profile},
};
use serde::Serialize;

use crate::{
    cloud::{CloudClient, explain},
    stack,
};

/// How old what is known may be.
const FRESH: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The clouds of an edge.
#[derive(Clone)]
pub struct Clouds {
    all: Arc<[Cloud]>,
    asked: Arc<Mutex<Option<Instant>>>,
}

struct Cloud {
    address: String,
    client: CloudClient,
    health: Mutex<Health>,
}

/// What one cloud was when it was asked last.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Health {
    /// None: not known yet.
    up: Option<bool>,
    /// Of a byte on the network as it is, ms.
    rtt_ms: Option<f64>,
    /// Why it is not up.
    problem: Option<String>,
    #[serde(skip)]
    instance: Option<u64>,
}

/// A cloud as the page shows it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Shown {
    address: String,
    /// Whether it is there for when the first does not answer.
    standby: bool,
    /// Whether it answered the edge's last call.
    in_use: bool,
    #[serde(flatten)]
    health: Health,
}

impl Clouds {
    pub fn new(config: &Config) -> Result<Self, String> {
        let none = Link::new(Profile::builtin("none").expect("comes with Cleave"), 0);
        let addresses = [&config.edge.cloud].into_iter().chain(&config.edge.standby);
        let cloud = |address: &String| {
            let edge = EdgeConfig { cloud: address.clone(), ..config.edge.clone() };
            let client = stack::client(&Config { edge, ..config.clone() }, &none)?;
            Ok(Cloud { address: address.clone(), client, health: Mutex::default() })
        };
        let all = addresses.map(cloud).collect::<Result<Arc<[Cloud]>, String>>()?;
        Ok(Self { all, asked: Arc::default() })
    }

    /// What is known, and asks again if that is old. `used`: the cloud process that answered last.
    pub fn shown(&self, used: Option<u64>) -> Vec<Shown> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            *asked = Some(Instant::now());
            let all = self.all.clone();
            (0..all.len()).for_each(|i| drop(tokio::spawn(ask(all.clone(), i))));
        }
        let shown = |(i, cloud): (usize, &Cloud)| {
            let health = cloud.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let in_use = used.is_some() && health.instance == used && health.up == Some(true);
            Shown { address: cloud.address.clone(), standby: i > 0, in_use, health }
        };
        self.all.iter().enumerate().map(shown).collect()
    }
}

async fn ask(all: Arc<[Cloud]>, i: usize) {
    let Cloud { client, health, .. } = &all[i];
    let found = match tokio::time::timeout(PATIENCE, client.probe(1, 1)).await {
        Ok(Ok((up, down))) => Health {
            up: Some(true),
            rtt_ms: Some(up + down),
            problem: None,
            instance: client.instance(),
        },
        Ok(Err(status)) => down(explain(client.address(), &status)),
        Err(_) => down(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    *health.lock().unwrap_or_else(PoisonError::into_inner) = found;
}

fn down(problem: String) -> Health {
    Health { up: Some(false), problem: Some(problem), ..Health::default() }
}
