//! The checkpoints of one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    CheckpointError,
    atomic::{io_error, sync_parent, write_atomic, write_synced},
    check_run_id,
    copies::{Copies, step_name},
    manifest::{AdapterBase, MANIFEST, Manifest, corrupt},
    tensors::{deserialize, serialize},
};
use crate::{model::StageState, session::outdated, wire::NamedTensors};

const TEMPORARY: &str = "writing-";
const FETCHED: &str = "fetching-";
const PINNED: &str = "pinned";

/// The files of one stage, checked.
pub struct StageFiles {
    pub weights: NamedTensors,
    /// Empty for a stage that came from the peer, or has no optimiser state.
    pub optimizer: Vec<u8>,
}

/// Checkpoints under one folder; each node has its own.
pub struct RunStore {
    dir: PathBuf,
    /// Held while a manifest is changed.
    writing: Mutex<()>,
    /// `runs.store`: where every checkpoint goes as well.
    copies: Option<Copies>,
}

impl RunStore {
    /// On disk only.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), writing: Mutex::new(()), copies: None }
    }

    /// The checkpoints of a node, `edge` or `cloud`, on disk and at the URL of `runs.store`. Credentials
    /// and endpoint of a bucket are in these variables.
    pub fn with_copies(
        runs: &Path,
        node: &str,
        url: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let copies = Copies::open(url, variables, node, MANIFEST);
        let copies = copies.map_err(|problem| format!("runs.store: {problem}"))?;
        Ok(Self { copies: Some(copies), ..Self::new(runs.join(node)) })
    }

    pub fn run_dir(&self, run: &str) -> PathBuf {
        self.dir.join(run)
    }

    fn step_dir(&self, run: &str, step: u64) -> PathBuf {
        self.run_dir(run).join(step_name(step))
    }

    /// Writes the state of all stages after `step`; one that is already there is replaced.
    pub fn write(&self, run: &str, step: u64, state: &[StageState]) -> Result<(), CheckpointError> {
        self.write_all(run, step, state, None)
    }

    /// The same of a run of which only adapters are kept.
    pub fn write_adapters(
        &self,
        run: &str,
        step: u64,
        state: &[StageState],
        base: AdapterBase,
    ) -> Result<(), CheckpointError> {
        self.write_all(run, step, state, Some(base))
    }

    fn write_all(
        &self,
        run: &str,
        step: u64,
        state: &[StageState],
        adapters: Option<AdapterBase>,
    ) -> Result<(), CheckpointError> {
        check_run_id(run)?;
        let _writing = self.writing.lock().unwrap_or_else(|p| p.into_inner());
        let target = self.step_dir(run, step);
        let temporary = self.run_dir(run).join(format!("{TEMPORARY}{step:08}"));
        let outcome = write_step(&temporary, state, adapters)
            .and_then(|()| replace_dir(&temporary, &target).map_err(|e| io_error(&target, e)));
        if outcome.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        outcome?;
        if let Some(copies) = &self.copies {
            copies.put_step(&self.dir, run, step);
        }
        Ok(())
    }

    /// Writes a file of the run itself, such as what it is.
    pub fn write_file(&self, run: &str, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        check_run_id(run)?;
        let dir = self.run_dir(run);
        fs::create_dir_all(&dir).map_err(|e| io_error(&dir, e))?;
        write_atomic(&dir.join(name), bytes)?;
        if let Some(copies) = &self.copies {
            copies.put_file(&self.dir, run, name);
        }
        Ok(())
    }

    /// Brings a file of the run from `runs.store` if it is not on disk.
    pub fn fetch_file(&self, run: &str, name: &str) -> Result<(), CheckpointError> {
        check_run_id(run)?;
        let (dir, Some(copies)) = (self.run_dir(run), &self.copies) else { return Ok(()) };
        let (path, temporary) = (dir.join(name), self.dir.join(format!("{FETCHED}{run}")));
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(|e| io_error(&self.dir, e))?;
        if copies.get_file(run, name, &temporary) {
            let moved = fs::create_dir_all(&dir).and_then(|()| fs::rename(&temporary, &path));
            return moved.map_err(|e| io_error(&path, e));
        }
        let _ = fs::remove_file(&temporary);
        Ok(())
    }

    /// Brings a step from `runs.store` if it is not on disk; an error if it is not what was written.
    fn fetch(&self, run: &str, step: u64) -> Result<(), CheckpointError> {
        let (target, Some(copies)) = (self.step_dir(run, step), &self.copies) else {
            return Ok(());
        };
        let _writing = self.writing.lock().unwrap_or_else(|p| p.into_inner());
        if target.join(MANIFEST).is_file() {
            return Ok(());
        }
        let temporary = self.run_dir(run).join(format!("{FETCHED}{step:08}"));
        let outcome = fetch_step(copies, run, step, &temporary).and_then(|found| match found {
            true => replace_dir(&temporary, &target).map_err(|e| io_error(&target, e)),
            false => Ok(()),
        });
        let _ = fs::remove_dir_all(&temporary);
        outcome
    }

    /// Weights of these stages, named `<stage>/<parameter>`, as [`RunStore::add`] takes them.
    pub fn export(
        &self,
        run: &str,
        step: u64,
        stages: &[String],
    ) -> Result<NamedTensors, CheckpointError> {
        let mut all = NamedTensors::new();
        for stage in stages {
            let weights = self.read(run, step, stage)?.weights;
            all.extend(weights.into_iter().map(|(name, t)| (format!("{stage}/{name}"), t)));
        }
        Ok(all)
    }

    /// What the adapters of a step are added to; none if its weights are whole.
    pub fn adapters(&self, run: &str, step: u64) -> Result<Option<AdapterBase>, CheckpointError> {
        check_run_id(run)?;
        self.fetch(run, step)?;
        Ok(Manifest::read(&self.step_dir(run, step))?.and_then(|m| m.adapters))
    }

    /// Adds weights of whole stages, which came from the peer, to a step's folder; they are named
    /// `<stage>/<parameter>`. `adapters`: see [`RunStore::adapters`].
    pub fn add(
        &self,
        run: &str,
        step: u64,
        stages: &[String],
        weights: NamedTensors,
        adapters: Option<AdapterBase>,
    ) -> Result<(), CheckpointError> {
        check_run_id(run)?;
        let _writing = self.writing.lock().unwrap_or_else(|p| p.into_inner());
        let dir = self.step_dir(run, step);
        fs::create_dir_all(&dir).map_err(|e| io_error(&dir, e))?;
        let mut manifest = Manifest::read(&dir)?.unwrap_or_default();
        if !manifest.files.is_empty() && manifest.adapters != adapters {
            return Err(corrupt(&dir, "the peer's adapters belong to other weights than ours"));
        }
        manifest.adapters = adapters;
        for (stage, tensors) in by_stage(stages, weights) {
            check_run_id(&stage)?;
            let (name, bytes) = (weights_file(&stage), serialize(&dir, &tensors)?);
            write_atomic(&dir.join(&name), &bytes)?;
            manifest.add(name, &bytes);
        }
        write_atomic(&dir.join(MANIFEST), &manifest.to_json())
    }

    /// Steps of a run with a complete checkpoint, here or in `runs.store`.
    pub fn steps(&self, run: &str) -> BTreeSet<u64> {
        let mut steps = self.steps_on_disk(run);
        if let (Some(copies), Ok(())) = (&self.copies, check_run_id(run)) {
            steps.extend(copies.steps(run));
        }
        steps
    }

    fn steps_on_disk(&self, run: &str) -> BTreeSet<u64> {
        let entries = fs::read_dir(self.run_dir(run)).into_iter().flatten().flatten();
        let step = |e: fs::DirEntry| {
            let number = e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            e.path().join(MANIFEST).is_file().then_some(number)
        };
        entries.filter_map(step).collect()
    }

    /// Stages of a step that have weights here.
    pub fn stages(&self, run: &str, step: u64) -> Result<BTreeSet<String>, CheckpointError> {
        check_run_id(run)?;
        self.fetch(run, step)?;
        let manifest = Manifest::read(&self.step_dir(run, step))?.unwrap_or_default();
        let stage = |name: &String| name.strip_suffix(".safetensors").map(str::to_string);
        Ok(manifest.files.keys().filter_map(stage).collect())
    }

    /// The files of one stage; an error if they are not what was written.
    pub fn read(&self, run: &str, step: u64, stage: &str) -> Result<StageFiles, CheckpointError> {
        check_run_id(run)?;
        self.fetch(run, step)?;
        let dir = self.step_dir(run, step);
        let manifest = Manifest::read(&dir)?.unwrap_or_default();
        let name = weights_file(stage);
        let bytes = manifest.read_file(&dir, &name)?;
        let weights = deserialize(&dir.join(&name), &bytes)?;
        let name = optimizer_file(stage);
        let known = manifest.files.contains_key(&name);
        let optimizer = if known { manifest.read_file(&dir, &name)? } else { Vec::new() };
        Ok(StageFiles { weights, optimizer })
    }

    /// Marks the step of a run that is deployed: it is not removed until another one is.
    pub fn pin(&self, run: &str, step: u64) -> Result<(), CheckpointError> {
        check_run_id(run)?;
        if self.pinned(run) == Some(step) {
            return Ok(());
        }
        write_atomic(&self.run_dir(run).join(PINNED), step.to_string().as_bytes())
    }

    fn pinned(&self, run: &str) -> Option<u64> {
        fs::read_to_string(self.run_dir(run).join(PINNED)).ok()?.trim().parse().ok()
    }

    /// Keeps the newest `keep` checkpoints of a run that the peer holds too, all newer ones, and the
    /// pinned one.
    pub fn retain(
        &self,
        run: &str,
        keep: usize,
        peer: &BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        self.remove_among(run, |steps| outdated(&steps, peer, keep).into_iter().collect())
    }

    /// Drops checkpoints after `step`: the run went back and will write them again.
    pub fn drop_after(&self, run: &str, step: u64) -> Result<(), CheckpointError> {
        self.remove_among(run, |mut steps| steps.split_off(&(step + 1)))
    }

    /// Removes what is chosen of the steps on disk, and of those in `runs.store`; never the pinned one.
    fn remove_among(
        &self,
        run: &str,
        choose: impl Fn(BTreeSet<u64>) -> BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        let pinned = self.pinned(run);
        let chosen = |mut steps: BTreeSet<u64>| {
            pinned.map(|step| steps.remove(&step));
            choose(steps)
        };
        if let (Some(copies), Ok(())) = (&self.copies, check_run_id(run)) {
            chosen(copies.steps(run)).into_iter().for_each(|step| copies.remove(run, step));
        }
        chosen(self.steps_on_disk(run)).into_iter().try_for_each(|step| self.remove(run, step))
    }

    fn remove(&self, run: &str, step: u64) -> Result<(), CheckpointError> {
        let dir = self.step_dir(run, step);
        // Without its manifest a folder is no checkpoint, so a removal cut short leaves none.
        fs::remove_file(dir.join(MANIFEST))
            .and_then(|()| fs::remove_dir_all(&dir))
            .map_err(|e| io_error(&dir, e))
    }
}

fn write_step(
    dir: &Path,
    state: &[StageState],
    adapters: Option<AdapterBase>,
) -> Result<(), CheckpointError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
    let mut manifest = Manifest { adapters, ..Manifest::default() };
    let mut put = |name: String, bytes: &[u8]| {
        let path = dir.join(&name);
        write_synced(&path, bytes).map_err(|e| io_error(&path, e))?;
        manifest.add(name, bytes);
        Ok(())
    };
    for stage in state {
        put(weights_file(&stage.stage), &serialize(dir, &stage.weights)?)?;
        if !stage.optimizer.is_empty() {
            put(optimizer_file(&stage.stage), &stage.optimizer)?;
        }
    }
    let path = dir.join(MANIFEST);
    write_synced(&path, &manifest.to_json()).map_err(|e| io_error(&path, e))
}

/// Copies a step into `dir` and checks it; false if there is no such step.
fn fetch_step(copies: &Copies, run: &str, step: u64, dir: &Path) -> Result<bool, CheckpointError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
    if !copies.get_manifest(run, step, dir) {
        return Ok(false);
    }
    let manifest = Manifest::read(dir)?.unwrap_or_default();
    let shown = |name: &str| PathBuf::from(copies.shown(run, step, name));
    for name in manifest.files.keys() {
        // Names from elsewhere must not lead elsewhere.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(corrupt(&shown(MANIFEST), format!("{name:?} is no file's name")));
        }
        copies.get(run, step, name, dir).map_err(|problem| corrupt(&shown(name), problem))?;
        manifest.read_file(dir, name).map_err(|e| match e {
            CheckpointError::Corrupt { problem, .. } => corrupt(&shown(name), problem),
            other => other,
        })?;
    }
    Ok(true)
}

/// Puts `new` in the place of `target`, which may exist.
fn replace_dir(new: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        let _ = fs::remove_file(target.join(MANIFEST));
        fs::remove_dir_all(target)?;
    }
    fs::rename(new, target)?;
    sync_parent(target)
}

fn weights_file(stage: &str) -> String {
    format!("{stage}.safetensors")
}

fn optimizer_file(stage: &str) -> String {
    format!("{stage}.optimizer")
}

/// Groups `<stage>/<parameter>` names by stage; a stage without parameters has an empty group.
pub(super) fn by_stage(stages: &[String], weights: NamedTensors) -> BTreeMap<String, NamedTensors> {
    let empty = stages.iter().map(|s| (s.clone(), NamedTensors::new()));
    let mut groups: BTreeMap<String, NamedTensors> = empty.collect();
    for (name, tensor) in weights {
        let Some((stage, name)) = name.split_once('/') else { continue };
        if let Some(group) = groups.get_mut(stage) {
            group.push((name.to_string(), tensor));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

    fn state(stage: &str, value: f32) -> StageState {
        let tensor = HostTensor::from_f32(vec![2], &[value, -value]);
        let weights = vec![(format!("{stage}.weight"), tensor)];
        StageState { stage: stage.into(), weights, optimizer: vec![1, 2, 3] }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = RunStore::new(dir.path());
        for step in [10, 20, 30] {
            store.write("a", step, &[state("conv1", step as f32), state("fc1", 0.5)]).unwrap();
        }
        store.retain("a", 2, &[10].into()).unwrap();
        assert_eq!(store.steps("a"), [10, 20, 30].into());
        store.retain("a", 2, &store.steps("a")).unwrap();
        assert_eq!(store.steps("a"), [20, 30].into());
        let files = store.read("a", 20, "conv1").unwrap();
        assert_eq!(files.weights, state("conv1", 20.0).weights);
        assert_eq!(files.optimizer, [1, 2, 3]);
        store.drop_after("a", 20).unwrap();
        assert_eq!(store.steps("a"), [20].into());
    }

    #[test]
    fn what_is_deployed_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = RunStore::new(dir.path());
        let write = |step| store.write("a", step, &[state("fc1", step as f32)]).unwrap();
        write(10);
        store.pin("a", 10).unwrap();
        [20, 30, 40].into_iter().for_each(write);
        store.retain("a", 2, &store.steps("a")).unwrap();
        assert_eq!(store.steps("a"), [10, 30, 40].into());
        store.pin("a", 40).unwrap();
        store.drop_after("a", 20).unwrap();
        store.retain("a", 2, &store.steps("a")).unwrap();
        assert_eq!(store.steps("a"), [10, 40].into());
    }

    #[test]
    fn a_changed_file_and_a_half_written_step_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = RunStore::new(dir.path());
        store.write("a", 1, &[state("fc1", 1.0)]).unwrap();
        fs::create_dir_all(dir.path().join("a/step-00000002")).unwrap();
        assert_eq!(store.steps("a"), [1].into(), "a folder without manifest is no checkpoint");
        fs::write(dir.path().join("a/step-00000001/fc1.optimizer"), b"x").unwrap();
        let error = store.read("a", 1, "fc1").err().unwrap().to_string();
        assert!(error.contains("fc1.optimizer: SHA-256 is"), "{error}");
    }

    #[test]
    fn stages_from_the_peer_are_added() {
        let dir = tempfile::tempdir().unwrap();
        let store = RunStore::new(dir.path());
        store.write("a", 1, &[state("fc1", 1.0)]).unwrap();
        let other = RunStore::new(dir.path().join("peer"));
        other.write("a", 1, &[state("conv1", 2.0)]).unwrap();
        let exported = other.export("a", 1, &["conv1".into()]).unwrap();
        assert_eq!(exported[0].0, "conv1/conv1.weight");
        store.add("a", 1, &["conv1".into()], exported, None).unwrap();
        assert_eq!(store.read("a", 1, "conv1").unwrap().weights, state("conv1", 2.0).weights);
        assert_eq!(store.stages("a", 1).unwrap(), ["conv1".into(), "fc1".into()].into());
        assert!(store.read("a", 1, "conv1").unwrap().optimizer.is_empty());
        assert!(store.read("a", 1, "fc2").is_err());
        assert!(store.write("../a", 1, &[]).is_err());
    }
}
