//! Deployments that are made before they are needed, so that a switch to them takes no time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Deployer, Deployment, Target};

/// Made deployments, by target. Their layers are shared, and one that is not wanted any more is dropped.
pub struct Ready {
    deployer: Deployer,
    kept: Mutex<Vec<Arc<Deployment>>>,
}

impl Ready {
    pub fn new(deployer: Deployer) -> Self {
        Self { deployer, kept: Mutex::default() }
    }

    pub fn deployer(&self) -> &Deployer {
        &self.deployer
    }

    /// The deployment of a target, made now if it is not there.
    pub async fn get(&self, target: &Target) -> Result<Arc<Deployment>, String> {
        let known = self.lock().iter().find(|d| d.target == *target).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(self.deployer.deploy(target.clone()).await?);
        self.lock().push(made.clone());
        Ok(made)
    }

    /// Drops all others.
    pub fn keep(&self, wanted: &[Target]) {
        self.lock().retain(|d| wanted.contains(&d.target));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Deployment>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
