"""A kernel with netem, for machines whose own has none: user-mode Linux.

It is an ordinary process; its root is the host's file system, so the same programs run inside. Built with
time-travel support (`build-uml`) its clock stands still while it computes, so that what it measures is
its own queueing. Debian's package of it runs on real time, which is good enough for slow networks.
"""

import glob
import os
import shutil
import subprocess
import tempfile

PACKAGE = "user-mode-linux"
MODULES = ["net/sched/sch_tbf.ko", "net/sched/sch_netem.ko", "drivers/net/veth.ko"]

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
for module in {modules}; do {busybox} insmod $module; done
ip link set lo up
cd {folder}
uname -r >{folder}/kernel
{command} >{folder}/out 2>{folder}/err
echo $? >{folder}/rc
sync
{busybox} poweroff -f
"""


class Uml:
    """A user-mode kernel's binary, its modules, and how it keeps time."""

    def __init__(self, binary, modules, virtual_time):
        self.binary, self.modules, self.virtual_time = binary, modules, virtual_time
        self.kernel = "?"

    def describe(self):
        clock = "virtual time" if self.virtual_time else "real time"
        return f"user-mode Linux {self.kernel}, {clock}"

    def run(self, command, timeout_s):
        """Runs a command inside, as root; gives (exit status, standard output, standard error)."""
        with tempfile.TemporaryDirectory(prefix="cleave-uml-") as folder:
            init = f"{folder}/init"
            fields = {
                "modules": " ".join(self.modules),
                "busybox": shutil.which("busybox") or "",
                "folder": folder,
                "command": command,
            }
            with open(init, "w") as file:
                file.write(INIT.format(**fields))
            os.chmod(init, 0o755)
            arguments = [self.binary, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"]
            arguments += ["mem=1G", f"init={init}", "con=null", "con0=null,fd:1", "quiet"]
            if self.virtual_time:
                arguments.append("time-travel=inf-cpu")
            with open(f"{folder}/console", "w") as console:
                streams = {"stdin": subprocess.DEVNULL, "stdout": console, "stderr": console}
                subprocess.run(arguments, timeout=timeout_s, **streams)
            self.kernel = read(f"{folder}/kernel").strip() or self.kernel
            status = read(f"{folder}/rc").strip()
            error = read(f"{folder}/err") or read(f"{folder}/console")
            return (int(status) if status else -1), read(f"{folder}/out"), error


def read(path):
    return open(path).read() if os.path.exists(path) else ""


def find(cache):
    """The one built for virtual time if it is there, else the packaged one, which is fetched into
    `cache` where it is not installed; None if there is none."""
    built = f"{cache}/linux.time-travel"
    if os.path.exists(built):
        return Uml(built, [], True)
    binary, modules = shutil.which("linux.uml"), "/usr/lib/uml/modules"
    if not binary:
        binary, modules = f"{cache}/usr/bin/linux.uml", f"{cache}/usr/lib/uml/modules"
        if not os.path.exists(binary):
            os.makedirs(cache, exist_ok=True)
            get = f"apt-get download -qq {PACKAGE} && dpkg-deb -x {PACKAGE}_*.deb . && rm {PACKAGE}_*.deb"
            if subprocess.run(get, shell=True, cwd=cache, capture_output=True).returncode:
                return None
    folders = glob.glob(f"{modules}/*/kernel")
    return Uml(binary, [f"{folders[0]}/{name}" for name in MODULES], False) if folders else None
