"""The folder of a demo: one at a time, never that of a real agent, and gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from axoneme.core import privileges
from axoneme.core.demo.place import DemoError, Place, check_privileges
from axoneme.core.errors import ConfigError, KernelError, LockedError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "bpf").mkdir()
    return Place(root=tmp_path, bpffs_root=tmp_path / "bpf")


@pytest.mark.parametrize(
    "name", ["axoneme", "", "demo-", "demo/..", "demo-../x", "Demo", "demo-0123456789abc"]
)
def test_a_demo_cannot_have_the_name_of_something_else(name: str) -> None:
    with pytest.raises(DemoError, match="no name for a demo"):
        Place(name)


def test_the_folder_is_there_while_it_is_held(place: Place) -> None:
    with place.held():
        assert place.folder.is_dir()
    assert not place.folder.exists()


def test_a_second_demo_is_refused(place: Place) -> None:
    with place.held(), pytest.raises(LockedError, match="a demo runs already") as caught, place.held():
        pass
    assert "--name demo-2" in str(caught.value.hint)
    with place.held():
        pass


def test_two_names_are_two_demos(place: Place) -> None:
    other = Place("demo-2", place.root, place.bpffs_root)
    with place.held(), other.held():
        assert place.folder != other.folder


def test_the_lock_is_on_the_folder_that_is_there_now(place: Place) -> None:
    """Whoever locked a folder that was removed meanwhile holds nothing."""
    with place.held():
        place.folder.rmdir()
        with place.held():
            assert place.folder.exists()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match="cannot make the folder"), Place(root=tmp_path / "file").held():
        pass


def test_the_configuration_says_what_the_demo_is(place: Place) -> None:
    with place.held():
        settings = place.configure().settings
        place.clean()
    assert settings.agent.name == "demo"
    assert settings.agent.state_dir == place.folder / "state"
    assert settings.plugins.enabled == ("policy", "lb", "hubble")
    assert settings.plugins.sections["lb"] == {"at_sockets": False}
    assert settings.datapath.devices == ("uplink",)
    assert str(settings.pools.ipv4) == "10.201.0.0/24"


def test_overrides_hold_but_never_for_the_folders(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONEME_AGENT__STATE_DIR", "/var/lib/axoneme")
    with place.held():
        config = place.configure(
            ["datapath.strategy=tailcalls", "agent.bpffs=/sys/fs/bpf/axoneme", "pools.ipv4=10.9.0.0/24"]
        )
        assert "10.9.0.0/24" in place.config_file.read_text()
        assert place._left().settings.pools == config.settings.pools
        place.clean()
    assert config.settings.datapath.strategy == "tailcalls"
    assert config.settings.agent.state_dir == place.folder / "state"
    assert config.settings.agent.bpffs == place.bpffs


def test_what_the_machine_has_is_not_touched_whatever_is_asked_for(place: Place) -> None:
    with place.held():
        config = place.configure(
            ["datapath.devices=[eth0]", "datapath.cgroup=/sys/fs/cgroup"],
            cgroup=Path("/cgroup/demo"),
            page=4711,
        )
        place.clean()
    assert config.settings.datapath.devices == ("uplink",)
    assert config.settings.datapath.cgroup == Path("/cgroup/demo")
    assert config.settings.plugins.sections["lb"] == {"at_sockets": True}
    assert config.settings.plugins.sections["hubble"]["ui"]["listen"] == "127.0.0.1:4711"


def test_a_wrong_override_is_an_error(place: Place) -> None:
    with place.held():
        with pytest.raises(ConfigError, match="unknown key"):
            place.configure(["agnt.name=x"])
        place.clean()
    assert not place.folder.exists()


def test_what_a_killed_demo_left_is_known_without_its_configuration(place: Place) -> None:
    with place.held():
        place.config_file.write_text("pools: [")
        assert place._left().settings.agent.state_dir == place.folder / "state"
        place.clean()


def test_without_privileges_it_says_which_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "effective", lambda thread="self": 0)
    with pytest.raises(KernelError, match="needs CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN") as caught:
        check_privileges()
    assert "sudo" in str(caught.value.hint)
