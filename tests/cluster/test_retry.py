"""A host that loses its power in the middle and comes back: the stage is tried again, and ends well."""

from __future__ import annotations

import threading
import time

import pytest

from tests.cluster.commands import Head
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.test_launch import wait_until
from tests.cluster.test_watch import merged

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(300)]
LAUNCH = ("launch", "job/watched.yaml", "--hostfile", "hostfile", "--no-check", "--lifeline", "5")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def test_a_host_that_comes_back_is_waited_for(head: Head) -> None:
    running = head.start(*LAUNCH, "--set", "steps=100", "--retries", "1")
    node1 = head.cluster["node1"]
    wait_until(lambda: "node1:2| step 5/" in merged(head) or running.poll() is not None, 90)
    assert running.poll() is None, running.communicate()[0]
    node1.poweroff()

    def power_on() -> None:
        time.sleep(30)  # it is missed after 5 s, the others are stopped, and 5 s later it is looked for
        node1.boot()

    threading.Thread(target=power_on).start()
    output, _ = running.communicate(timeout=200)
    assert running.returncode == 0, output
    assert "trying again in 5 s (1): node1 was lost" in output
    assert "waiting for node1 to be reached again" in output
    state = head.state()
    assert [(stage["status"], stage["attempts"]) for stage in state["stages"]] == [("done", 2)]
    assert "step 100/100" in merged(head)
    assert head.ranks() == []


def test_an_exception_of_the_program_is_not_tried_again(head: Head) -> None:
    words = ("launch", "job/trial.yaml", "--hostfile", "hostfile", "--no-check", "--retries", "3")
    done = head.dsdoctor(*words, "--set", "first.raise_on_rank=1")
    assert done.returncode == 1
    assert "not tried again: nothing says that another attempt would go better" in done.stderr
    assert head.state()["stages"][0]["attempts"] == 1
