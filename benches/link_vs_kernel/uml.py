"""A kernel with netem, for machines whose own has none: user-mode Linux, as Debian packages it.

It is an ordinary process; its root is the host's file system, so the same programs run inside.
"""

import glob
import os
import shutil
import subprocess
import tempfile

PACKAGE = "user-mode-linux"

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
for module in {modules}; do {insmod} $module; done
ip link set lo up
cd {folder}
{command} >{folder}/out 2>{folder}/err
echo $? >{folder}/rc
sync
{poweroff}
"""


def find(cache):
    """(binary, modules folder), fetched into `cache` if it is not installed; None if there is none."""
    installed = shutil.which("linux.uml")
    if installed:
        return installed, glob.glob("/usr/lib/uml/modules/*/kernel")[0]
    if not glob.glob(f"{cache}/usr/bin/linux.uml"):
        os.makedirs(cache, exist_ok=True)
        get = f"apt-get download -qq {PACKAGE} && dpkg-deb -x {PACKAGE}_*.deb . && rm {PACKAGE}_*.deb"
        done = subprocess.run(get, shell=True, cwd=cache, capture_output=True, text=True)
        if done.returncode:
            return None
    return f"{cache}/usr/bin/linux.uml", glob.glob(f"{cache}/usr/lib/uml/modules/*/kernel")[0]


def run(uml, command, timeout_s):
    """Runs a command inside, as root; gives (exit status, standard output, standard error)."""
    binary, modules = uml
    names = ["net/sched/sch_tbf.ko", "net/sched/sch_netem.ko", "drivers/net/veth.ko"]
    with tempfile.TemporaryDirectory(prefix="cleave-uml-") as folder:
        init = f"{folder}/init"
        with open(init, "w") as file:
            busybox = shutil.which("busybox")
            file.write(
                INIT.format(
                    modules=" ".join(f"{modules}/{name}" for name in names),
                    insmod=f"{busybox} insmod" if busybox else "insmod",
                    poweroff=f"{busybox} poweroff -f" if busybox else "poweroff -f",
                    folder=folder,
                    command=command,
                )
            )
        os.chmod(init, 0o755)
        arguments = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "mem=1G"]
        arguments += [f"init={init}", "con=null", "con0=null,fd:1", "quiet"]
        with open(f"{folder}/console", "w") as console:
            subprocess.run(
                [binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                timeout=timeout_s,
            )
        read = lambda name: open(f"{folder}/{name}").read() if os.path.exists(f"{folder}/{name}") else ""
        rc = read("rc").strip()
        return (int(rc) if rc else -1), read("out"), read("err") or read("console")
