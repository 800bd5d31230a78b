#!/usr/bin/env python3
"""Makes the Debian package, the static archive and the wheel from one static binary.

scripts/package builds the binary and calls this. All files get the time of SOURCE_DATE_EPOCH, so two runs
over the same sources make the same bytes.
"""

import argparse
import base64
import email.utils
import gzip
import hashlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Rust's name of an architecture, Debian's, and the tags of wheels.
ARCHITECTURES = {
    "x86_64": ("amd64", "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64"),
    "aarch64": ("arm64", "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"),
}

MAINTAINER = "The dcmdex maintainers <dcmdex@users.noreply.github.com>"

SUMMARY = "DICOM network node that indexes"

DESCRIPTION = """\
 dcmdex scans archives of DICOM files where they lie, receives objects by
 C-STORE, answers C-FIND, and sends by C-GET and C-MOVE. It also speaks
 DICOMweb. All of it rests on one SQLite file that other programs can read.
 .
 It is not a medical device and not for diagnosis.
"""


def version() -> str:
    text = (ROOT / "Cargo.toml").read_text()
    return re.search(r'^version = "(.+)"', text, re.M).group(1)


def epoch() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    asked = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return int(asked.stdout.strip() or 0)


class Tree:
    """Files of a package: path to bytes and mode."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}

    def add(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        self.files[path] = (content.encode() if isinstance(content, str) else content, mode)

    def add_file(self, path: str, source: pathlib.Path, mode: int = 0o644) -> None:
        self.add(path, source.read_bytes(), mode)

    def directories(self) -> list[str]:
        found = set()
        for path in self.files:
            found.update(str(parent) for parent in pathlib.PurePosixPath(path).parents if str(parent) != ".")
        return sorted(found)

    def tar(self, prefix: str, when: int) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
            entries = [(path, None) for path in self.directories()]
            entries += [(path, content) for path, content in self.files.items()]
            for path, content in sorted(entries, key=lambda entry: entry[0]):
                info = tarfile.TarInfo(prefix + path)
                info.mtime, info.uname, info.gname = when, "root", "root"
                if content is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
                else:
                    info.size, info.mode = len(content[0]), content[1]
                    archive.addfile(info, io.BytesIO(content[0]))
        return raw.getvalue()


def compressed(content: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(content)
    return out.getvalue()


def output_of(tool: pathlib.Path, *arguments: str) -> bytes:
    return subprocess.run([tool, *arguments], check=True, capture_output=True, cwd="/").stdout


def manual_pages(tool: pathlib.Path, work: pathlib.Path) -> list[pathlib.Path]:
    directory = work / "man"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    subprocess.run([tool, "man", "--directory", directory], check=True, cwd="/")
    return sorted(directory.iterdir())


def settings(tool: pathlib.Path) -> str:
    """The example settings, with the paths of a system service."""
    text = output_of(tool, "config", "init", "-").decode()
    for key, path in (("index", "/var/lib/dcmdex/index.db"), ("storage", "/var/lib/dcmdex/objects")):
        text, count = re.subn(rf'(?m)^(# )?{key} = ".*"$', f'{key} = "{path}"', text)
        if count != 1:
            raise SystemExit(f"the example settings have {count} lines for {key}")
    return text


def links(document: pathlib.Path) -> list[pathlib.Path]:
    """The files and folders of the repository that a Markdown document links to."""
    # Code between fences or back quotes holds no links.
    prose = re.sub(r"(?ms)^\s*```.*?^\s*```", "", document.read_text())
    found = re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`]*`", "", prose))
    paths = [link.split("#")[0].strip() for link in found if "://" not in link and not link.startswith("mailto:")]
    return [pathlib.Path(os.path.normpath(document.parent / path)) for path in paths if path]


def documents() -> list[pathlib.Path]:
    """The documents of the static archive, with all that they link to."""
    waiting = [ROOT / name for name in ("README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT")]
    waiting += (ROOT / "docs").rglob("*.md")
    found: set[pathlib.Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        if path.is_dir():
            waiting += path.iterdir()
            continue
        found.add(path)
        if path.suffix == ".md":
            waiting += links(path)
    return sorted(path.relative_to(ROOT) for path in found)


def debian(binary: pathlib.Path, tool: pathlib.Path, work: pathlib.Path, architecture: str, when: int) -> pathlib.Path:
    name = ARCHITECTURES[architecture][0]
    files = Tree()
    files.add_file("usr/bin/dcmdex", binary, 0o755)
    for page in manual_pages(tool, work):
        files.add(f"usr/share/man/man1/{page.name}.gz", compressed(page.read_bytes()))
    files.add("usr/share/bash-completion/completions/dcmdex", output_of(tool, "completions", "bash"))
    files.add("usr/share/zsh/vendor-completions/_dcmdex", output_of(tool, "completions", "zsh"))
    files.add("usr/share/fish/vendor_completions.d/dcmdex.fish", output_of(tool, "completions", "fish"))
    for unit in sorted((ROOT / "packaging/systemd").iterdir()):
        files.add_file(f"lib/systemd/system/{unit.name}", unit)
    files.add("etc/dcmdex/dcmdex.toml", settings(tool))
    doc = "usr/share/doc/dcmdex"
    files.add(f"{doc}/copyright", (ROOT / "packaging/debian/copyright").read_text())
    files.add_file(f"{doc}/README.Debian", ROOT / "packaging/debian/README.Debian")
    changed = email.utils.formatdate(when, usegmt=False)
    changelog = f"dcmdex ({version()}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER}  {changed}\n"
    files.add(f"{doc}/changelog.gz", compressed(changelog.encode()))
    for document in ["README.md", "CHANGELOG.md", "docs/operations.md", "docs/data.md", "docs/cookbook.md", "docs/json.md"]:
        path = ROOT / document
        files.add(f"{doc}/{path.name}.gz", compressed(path.read_bytes()))
    files.add_file("usr/share/lintian/overrides/dcmdex", ROOT / "packaging/debian/lintian-overrides")
    root = work / f"deb-{name}"
    shutil.rmtree(root, ignore_errors=True)
    for path, (content, mode) in files.files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)
    size = sum(len(content) for content, _ in files.files.values())
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        f"Package: dcmdex\nVersion: {version()}\nArchitecture: {name}\nMaintainer: {MAINTAINER}\n"
        f"Installed-Size: {size // 1024}\nDepends: adduser, init-system-helpers (>= 1.54)\n"
        "Section: net\nPriority: optional\nHomepage: https://github.com/dcmdex/dcmdex\n"
        f"Description: {SUMMARY}\n{DESCRIPTION}"
    )
    (control / "conffiles").write_text("/etc/dcmdex/dcmdex.toml\n")
    (control / "md5sums").write_text(
        "".join(
            f"{hashlib.md5(content).hexdigest()}  {path}\n"
            for path, (content, _) in sorted(files.files.items())
            if not path.startswith("etc/")
        )
    )
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(ROOT / "packaging/debian" / script, control / script)
        (control / script).chmod(0o755)
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (when, when))
    package = work / f"dcmdex_{version()}_{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package)]
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(when)}, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return package


def static_archive(
    binary: pathlib.Path, tool: pathlib.Path, work: pathlib.Path, architecture: str, when: int
) -> pathlib.Path:
    stem = f"dcmdex-{version()}-{architecture}-linux"
    files = Tree()
    files.add_file("dcmdex", binary, 0o755)
    for page in manual_pages(tool, work):
        files.add_file(f"man/man1/{page.name}", page)
    for shell, name in (("bash", "dcmdex.bash"), ("zsh", "_dcmdex"), ("fish", "dcmdex.fish")):
        files.add(f"completions/{name}", output_of(tool, "completions", shell))
    for unit in sorted((ROOT / "packaging/systemd").iterdir()):
        files.add_file(f"systemd/{unit.name}", unit)
    files.add("dcmdex.toml.example", output_of(tool, "config", "init", "-"))
    for document in documents():
        files.add_file(document.as_posix(), ROOT / document)
    archive = work / f"{stem}.tar.gz"
    archive.write_bytes(compressed(files.tar(f"{stem}/", when)))
    return archive


def wheel(binary: pathlib.Path, work: pathlib.Path, architecture: str, when: int) -> pathlib.Path:
    tags = ARCHITECTURES[architecture][1]
    name = f"dcmdex-{version()}"
    info = f"{name}.dist-info"
    platforms = "".join(f"Tag: py3-none-{tag}\n" for tag in tags.split("."))
    files = [
        (f"{name}.data/scripts/dcmdex", binary.read_bytes(), 0o755),
        (
            f"{info}/METADATA",
            (
                f"Metadata-Version: 2.3\nName: dcmdex\nVersion: {version()}\nSummary: {SUMMARY}\n"
                "License: Apache-2.0 OR MIT\nRequires-Python: >=3.7\nClassifier: Operating System :: POSIX :: Linux\n"
                "Project-URL: Repository, https://github.com/dcmdex/dcmdex\n"
                "Description-Content-Type: text/markdown\n\n" + (ROOT / "README.md").read_text()
            ).encode(),
            0o644,
        ),
        (
            f"{info}/WHEEL",
            f"Wheel-Version: 1.0\nGenerator: dcmdex scripts/package\nRoot-Is-Purelib: false\n{platforms}".encode(),
            0o644,
        ),
        (f"{info}/licenses/LICENSE-APACHE", (ROOT / "LICENSE-APACHE").read_bytes(), 0o644),
        (f"{info}/licenses/LICENSE-MIT", (ROOT / "LICENSE-MIT").read_bytes(), 0o644),
    ]
    record = ""
    for path, content, _ in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files.append((f"{info}/RECORD", (record + f"{info}/RECORD,,\n").encode(), 0o644))
    moment = max(email.utils.datetime.datetime.fromtimestamp(when, email.utils.datetime.timezone.utc).timetuple()[:6],
                 (1980, 1, 1, 0, 0, 0))
    path = work / f"{name}-py3-none-{tags}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for inside, content, mode in files:
            entry = zipfile.ZipInfo(inside, moment)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, help="the static, stripped binary")
    parser.add_argument("--documents", action="store_true", help="only list the documents of the static archive")
    parser.add_argument("--tool", type=pathlib.Path, help="the same program for this machine, if it is another")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="x86_64")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/package")
    arguments = parser.parse_args()
    if arguments.documents:
        print("\n".join(path.as_posix() for path in documents()))
        return
    if arguments.binary is None:
        parser.error("--binary is missing")
    work = arguments.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    binary = arguments.binary.resolve()
    tool = (arguments.tool or arguments.binary).resolve()
    os.umask(0o022)
    when = epoch()
    made = [static_archive(binary, tool, work, arguments.architecture, when)]
    if shutil.which("dpkg-deb"):
        made.append(debian(binary, tool, work, arguments.architecture, when))
    else:
        print("skipped: the Debian package needs dpkg-deb")
    made.append(wheel(binary, work, arguments.architecture, when))
    shutil.rmtree(work / "man", ignore_errors=True)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (work / f"SHA256SUMS-{arguments.architecture}").write_text(sums)
    print(f"{binary.stat().st_size:>12,}  the stripped binary")
    for path in made:
        print(f"{path.stat().st_size:>12,}  {path}")


if __name__ == "__main__":
    main()
