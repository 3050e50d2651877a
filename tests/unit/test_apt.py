"""Packages unpacked without root, from a small archive of our own: no network, no change to the system."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from octopus_async.testing.servers import apt

STATUS = Path("/var/lib/dpkg/status")

pytestmark = pytest.mark.skipif(not apt.usable(), reason="only Debian and Ubuntu have apt-get")


class Archive:
    """A folder that apt-get takes for a mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "Packages").touch()

    def add(self, name: str, *, depends: str = "", file: str = "") -> None:
        tree = self.folder / f"{name}.tree"
        control = f"Package: {name}\nSource: octopus\nVersion: 1.0\nArchitecture: all\nMaintainer: us\n"
        control += f"Depends: {depends}\n" * bool(depends) + f"Description: {name} for a test\n"
        for path, content in (("DEBIAN/control", control), (file or f"usr/bin/{name}", name)):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        package = self.folder / f"{name}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)  # noqa: S607
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        with (self.folder / "Packages").open("a") as index:
            place = f"Filename: {package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
            index.write(f"{control}{place}\n")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive(tmp_path / "archive")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{archive.folder} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{tmp_path}/sources.list";\nDir::Etc::SourceParts "{tmp_path}/none";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return archive


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the system's record of what is installed."""
    copy = tmp_path / "status"
    shutil.copy(STATUS, copy)
    monkeypatch.setattr(apt, "_STATUS", copy)
    return copy


def add_stanza(status: Path, name: str, state: str, more: str = "Section: misc") -> None:
    with status.open("a") as file:
        file.write(f"Package: {name}\nStatus: {state}\nVersion: 1.0\nArchitecture: all\n{more}\n\n")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "unpacked" / "server"


def test_a_package_comes_with_the_libraries_that_the_system_lacks(archive: Archive, target: Path) -> None:
    archive.add("octopusd", depends="libocto1 (>= 1.0), libc6")
    archive.add("libocto1", file="usr/lib/x86_64-linux-gnu/libocto.so.1")
    apt.unpack("octopusd", target)
    assert (target / "usr/bin/octopusd").read_text() == "octopusd"
    assert apt.libraries(target) == [target / "usr/lib/x86_64-linux-gnu"]
    assert [path.name for path in apt.libraries(target)[0].iterdir()] == ["libocto.so.1"]  # and not libc


def test_the_system_is_left_as_it_was(archive: Archive, target: Path) -> None:
    archive.add("octopusd")
    before = STATUS.read_bytes()
    apt.unpack("octopusd", target)
    assert STATUS.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["server"]


def test_of_numbered_packages_the_newest_is_taken(archive: Archive, target: Path) -> None:
    for number in ("9.11", "10.6", "10.11", "10.2"):
        archive.add(f"octopus-server-{number}")
    archive.add("octopus-server-10.99-extras")
    apt.unpack(r"octopus-server(-[0-9.]+)?", target)
    assert [path.name for path in (target / "usr/bin").iterdir()] == ["octopus-server-10.11"]


def test_what_only_set_up_scripts_need_is_not_even_asked_for(archive: Archive, target: Path) -> None:
    archive.add("octopusd", depends="octo-adduser (>= 3.1), octo-perl:any, octo-debconf | octo-cdebconf")
    apt.unpack("octopusd", target)
    assert (target / "usr/bin/octopusd").is_file()


def test_a_package_that_is_installed_is_unpacked_all_the_same(
    archive: Archive, target: Path, status: Path
) -> None:
    archive.add("octopusd")
    add_stanza(status, "octopusd", "install ok installed")
    apt.unpack("octopusd", target)
    assert (target / "usr/bin/octopusd").is_file()


def test_what_is_installed_beside_it_is_left_out(archive: Archive, target: Path, status: Path) -> None:
    for name in ("octopusd", "octo-client", "libocto1"):
        archive.add(name, depends="libc6")
        add_stanza(status, name, "install ok installed")
    apt.unpack("octopusd", target)
    assert [path.name for path in (target / "usr/bin").iterdir()] == ["octopusd"]


def test_a_system_that_is_half_broken_is_no_obstacle(archive: Archive, target: Path, status: Path) -> None:
    archive.add("octopusd", depends="libocto1")
    archive.add("libocto1")
    add_stanza(status, "octo-client", "install ok unpacked", "Depends: no-such-package\nBreaks: octopusd")
    apt.unpack("octopusd", target)
    assert (target / "usr/bin/octopusd").is_file()


def test_what_was_there_is_replaced(archive: Archive, target: Path) -> None:
    archive.add("octopusd")
    target.mkdir(parents=True)
    (target / "broken").touch()
    apt.unpack("octopusd", target)
    assert [path.name for path in target.iterdir()] == ["usr"]


@pytest.mark.parametrize(
    ("depends", "wanted", "said"),
    [
        ("", "no-such-server", "has no package"),
        ("libno-such-library1", "octopusd", "Depends: libno-such-library1 but"),
    ],
    ids=["no package", "no library"],
)
def test_what_cannot_be_had_is_said_in_one_line_and_leaves_nothing(
    archive: Archive, target: Path, depends: str, wanted: str, said: str
) -> None:
    archive.add("octopusd", depends=depends)
    with pytest.raises(apt.AptFailed, match=said) as caught:
        apt.unpack(wanted, target)
    assert "\n" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_package_that_arrives_damaged_is_refused(archive: Archive, target: Path) -> None:
    archive.add("octopusd")
    with (archive.folder / "octopusd.deb").open("r+b") as package:
        package.seek(-10, 2)
        package.write(b"damaged!!!")
    with pytest.raises(apt.AptFailed):
        apt.unpack("octopusd", target)
    assert not target.exists()
