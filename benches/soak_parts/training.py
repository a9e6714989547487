"""Runs of training one after the other, whose every step and final weights are compared with an undisturbed run's."""

import asyncio
import hashlib
import json
import shutil
import time


class Training:
    """What `fleet` trains, in so many places at once."""

    def __init__(self, fleet):
        self.fleet = fleet
        # Of the undisturbed run.
        self.steps, self.expected = 0, None
        self.finished, self.kills, self.faults = 0, 0, []
        self.running, self.killed = {}, set()

    async def undisturbed(self):
        """The run that all others have to equal."""
        run = "undisturbed"
        process = await self.fleet.train(run, resume=False)
        if await process.wait() != 0:
            raise SystemExit(f"the undisturbed run failed: {self.fleet.training_log(run)}")
        self.steps = max(self.steps_of(run))
        self.expected = self.weights(run)
        self.forget(run)

    def weights(self, run):
        """A digest of each file of weights of the last step, of both nodes."""
        files = {}
        for node, folder in self.fleet.run_folders(run).items():
            for file in sorted((folder / f"step-{self.steps:08}").glob("*.safetensors")):
                files[f"{node}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return files

    async def keep_training(self, place, end):
        """Until `end`; the last run is finished as well."""
        number = 0
        while time.monotonic() < end:
            run = f"soak-{place}-{number}"
            number += 1
            await self.one(run)

    async def one(self, run):
        resume = False
        while True:
            process = await self.fleet.train(run, resume)
            self.running[run] = process
            code = await process.wait()
            del self.running[run]
            if code == 0:
                break
            if run not in self.killed:
                self.faults.append(f"{run} ended with {code}: {self.fleet.training_log(run)}")
                return
            self.killed.remove(run)
            # Nothing to resume where it had not even begun.
            resume = (self.fleet.run_folders(run)["edge"] / "metrics.jsonl").exists()
        self.compare(run)
        self.finished += 1
        self.forget(run)

    def steps_of(self, run):
        lines = (self.fleet.run_folders(run)["edge"] / "metrics.jsonl").read_text().splitlines()
        return [line["step"] for line in map(json.loads, lines) if line["kind"] == "step"]

    def compare(self, run):
        steps = self.steps_of(run)
        if steps != list(range(1, self.steps + 1)):
            seen = set()
            twice = [step for step in steps if step in seen or seen.add(step)]
            lost = sorted(set(range(1, self.steps + 1)) - set(steps))
            self.faults.append(f"{run}: steps lost: {lost[:5]}, doubled: {twice[:5]}")
        found = self.weights(run)
        differing = sorted(name for name in self.expected if found.get(name) != self.expected[name])
        if differing:
            self.faults.append(f"{run}: weights differ: {', '.join(differing)}")

    def kill_one(self, draw):
        """Kills the edge of a run, which is then resumed."""
        if self.running:
            run = draw.choice(sorted(self.running))
            self.killed.add(run)
            self.kills += 1
            self.fleet.kill_training(run, self.running[run])

    def forget(self, run):
        for folder in self.fleet.run_folders(run).values():
            shutil.rmtree(folder, ignore_errors=True)

    async def all(self, places, end):
        await asyncio.gather(*(self.keep_training(place, end) for place in range(places)))
