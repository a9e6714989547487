//! Which connections share a radio.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use cleave_shared::link::{Cell, Link, Profile, Scheduler};

/// The radios behind a proxy: one for all clients, or one in the same cell for each client address.
#[derive(Debug)]
pub struct Edges {
    cell: Cell,
    seed: u64,
    one_each: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    profile: Profile,
    links: BTreeMap<String, Link>,
}

/// The label of the only radio, when there is one for all.
const ALL: &str = "all";

impl Edges {
    /// `shared`: each client address is an edge of its own, and the cell is shared by that rule.
    pub fn new(profile: Profile, seed: u64, shared: Option<Scheduler>) -> Self {
        let cell = Cell::new(shared.unwrap_or_default());
        let state = Mutex::new(State { profile, links: BTreeMap::new() });
        let edges = Self { cell, seed, one_each: shared.is_some(), state };
        if shared.is_none() {
            edges.link_named(ALL);
        }
        edges
    }

    /// The radio of the edge at that address; made when it is first seen.
    pub fn link(&self, address: IpAddr) -> Link {
        if self.one_each { self.link_named(&address.to_string()) } else { self.link_named(ALL) }
    }

    fn link_named(&self, name: &str) -> Link {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = state.links.get(name) {
            return link.clone();
        }
        // From the name, so that an edge's draws do not depend on who came first.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let seed = if name == ALL { self.seed } else { self.seed ^ hasher.finish() };
        let link = self.cell.join(state.profile.clone(), seed);
        state.links.insert(name.to_owned(), link.clone());
        link
    }

    /// All edges seen so far, by name.
    pub fn all(&self) -> Vec<(String, Link)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.links.iter().map(|(name, link)| (name.clone(), link.clone())).collect()
    }

    pub fn profile(&self) -> Profile {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).profile.clone()
    }

    /// Moves all edges, present and future, to another network.
    pub fn set_profile(&self, profile: Profile) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.links.values().for_each(|link| link.set_profile(profile.clone()));
        state.profile = profile;
    }
}

/// Where a profile's name is looked up.
#[derive(Debug, Clone)]
pub struct ProfileSource {
    /// A name, or a path to a file.
    pub name: String,
    /// The folder of profile files, if there is one.
    pub folder: Option<PathBuf>,
}

impl ProfileSource {
    pub fn load(&self) -> Result<Profile, String> {
        Profile::find(&self.name, self.folder.as_deref()).map_err(|e| e.to_string())
    }
}
