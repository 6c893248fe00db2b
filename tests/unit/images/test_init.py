"""The RAM disk's script, piece by piece: what it leaves to systemd of the watchdog."""

import subprocess
from pathlib import Path

import pytest
from appliance import image

INIT = image.FILES / "init"
OURS = "usr/lib/systemd/system.conf.d/10-pinnace.conf"
CHOSEN = "etc/systemd/system.conf.d/20-appliance.conf"


def hands_over(folder: Path, word: str = "") -> str:
    """How the watchdog's feeder is ended, with ``folder`` for the root that goes on."""
    text = INIT.read_text().partition("hand_over_watchdog() {")[2].partition("\n}\n")[0]
    text = text.replace("/root/", f"{folder}/")
    stubs = 'kill() { echo "$1"; }; wait() { :; }; watchdog=17'
    script = f"{stubs}\nfeeding={word}\nhand() {{{text}\n}}\nhand"
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(path: Path, value: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[Manager]\nRuntimeWatchdogSec={value}\nRebootWatchdogSec=2min\n")


LEFT_ON, STOPPED = "-KILL", "-TERM"


@pytest.mark.parametrize(
    ("chosen", "end"), [("", LEFT_ON), ("2min", LEFT_ON), ("off", STOPPED), ("0", STOPPED)]
)
def test_the_watchdog_stays_on_where_the_owner_left_it_on(
    tmp_path: Path, chosen: str, end: str
) -> None:
    write(tmp_path / OURS, "60s")
    if chosen:
        write(tmp_path / CHOSEN, chosen)
    assert hands_over(tmp_path) == end


@pytest.mark.parametrize(("word", "end"), [("off", STOPPED), ("30", LEFT_ON)])
def test_the_word_of_the_kernel_comes_before_all_files(tmp_path: Path, word: str, end: str) -> None:
    write(tmp_path / OURS, "60s")
    write(tmp_path / CHOSEN, "off" if end == LEFT_ON else "60s")
    assert hands_over(tmp_path, word) == end


def test_the_watchdog_stops_where_nobody_would_feed_it(tmp_path: Path) -> None:
    assert hands_over(tmp_path) == STOPPED


@pytest.mark.parametrize(
    ("word", "starts"), [("", True), ("60", True), ("0", False), ("off", False)]
)
def test_the_watchdog_is_not_started_where_the_kernel_is_told_so(word: str, starts: bool) -> None:
    text = INIT.read_text().partition("start_watchdog() {")[2].partition("\n}\n")[0]
    stubs = "watchdog() { echo started; }; watchdog="
    script = f"{stubs}\nfeeding={word}\nbegin() {{{text}\n}}\nbegin; wait"
    script = script.replace("/dev/watchdog", "/dev/null")
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip() == "started") is starts
