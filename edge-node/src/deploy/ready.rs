//! Deployments that are made before they are needed, so that a switch to them takes no time.

use std::sync::Arc;

use cleave_shared::kept::Kept;

use super::{Deployer, Deployment, Target};

/// More than are wanted at once: what is not wanted is dropped by [`Ready::keep`].
const MOST: usize = 16;

/// Made deployments, by target. Their layers are shared.
pub struct Ready {
    deployer: Deployer,
    kept: Kept<Target, Arc<Deployment>>,
}

impl Ready {
    pub fn new(deployer: Deployer) -> Self {
        Self { deployer, kept: Kept::new(MOST) }
    }

    pub fn deployer(&self) -> &Deployer {
        &self.deployer
    }

    /// The deployment of a target, made now if it is not there.
    pub async fn get(&self, target: &Target) -> Result<Arc<Deployment>, String> {
        let make = async || Ok(Arc::new(self.deployer.deploy(target.clone()).await?));
        self.kept.get(target, make).await
    }

    /// Drops all others.
    pub fn keep(&self, wanted: &[Target]) {
        self.kept.retain(|target| wanted.contains(target));
    }
}
