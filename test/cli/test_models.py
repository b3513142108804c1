"""`topreward models` as a user types it, against real folders, a real hub cache and a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("torch", reason="scoring needs PyTorch")

from test.prepared import completed
from test.robometer import BASE, make_robometer
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint

MODULE = "topreward_ros.cli"
COMMAND = [sys.executable, "-m", MODULE]
NAME = "some-org/some-model"
COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
WEIGHTS = "model.safetensors"
MEBIBYTE = 1 << 20
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Hub:
    """A hub on this machine that publishes one folder, with as much of the protocol as a download needs.

    Weights are large files, told by their SHA-256; what else lies in the folder is a small one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others: dict[str, Path] = {}  #: further models that it publishes, by name
        self.sent: list[tuple[str, int]] = []  #: files that were asked for, and from which byte on
        self.breaks_after: list[int] = []  #: bytes after which the next answers with weights break off
        self.refuses = 0, ""  #: status and error code for every file
        self.ends_with_break = False  #: nothing is sent any more after weights have broken off
        self.unknown = False
        self.damages = False  #: weights arrive with other bytes
        self.slowly = False  #: weights take minutes
        self.knows_ranges = True  #: else a file always comes from its beginning
        self.claimed_size: object = 0  #: of the weights, instead of their own
        self.claimed_sha256 = ""  #: likewise
        self.claimed_commit = COMMIT  #: of the model
        self.endless = ""  #: the file whose body never ends
        self.headers: dict[str, str] = {}  #: of every file, instead of the right ones
        self.wait_headers: dict[str, str] = {}  #: of every refusal
        self.short = ""  #: the file of which the last byte does not come, though all is said to be there
        self.blob_ids = False  #: small files are told by what git calls them
        self.endless_list = False
        self.more_names: list[object] = []  #: of files that are no files of the folder
        self._back: threading.Timer | None = None
        self.closes_once = False  #: after telling of the model, nobody listens for a moment
        self.requests = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self._listen(0)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.socket.close()  # server_close waits for the thread that calls this
        self._thread.join()

    def close(self) -> None:
        self.slowly = False
        if self._back:
            self._back.join()
        self._stop_listening()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        path = request.path.partition("?")[0]
        name = next((other for other in self.others if f"/{other}" in path), NAME)
        folder = self.others.get(name, self.folder)
        about, resolve = f"/api/models/{name}", f"/{name}/resolve/{COMMIT}/"
        if path.startswith(resolve) and (file := folder / path.removeprefix(resolve)).is_file():
            self._send_file(request, file)
        elif path.startswith(f"{about}/tree/{COMMIT}"):
            tree = [
                {"type": "file", "oid": "0" * 40, **self._entry(file, "path")}
                for file in sorted(folder.iterdir())
            ]
            self._send(request, json.dumps(tree).encode())
        elif path.startswith(about) and self.endless_list:
            self._send_without_end(request)
        elif path.startswith(about) and not self.unknown:
            siblings = [self._entry(file, "rfilename") for file in sorted(folder.iterdir())]
            siblings += [{"rfilename": name, "size": 10} for name in self.more_names]
            told = {"id": name, "sha": self.claimed_commit, "siblings": siblings}
            if self.closes_once:
                self.closes_once = False
                request.close_connection = True
                self._stop_listening()
                self._back = threading.Timer(1.0, self._listen, [self._server.server_port])
                self._back.start()
            self._send(request, json.dumps(told).encode())
        else:
            self._refuse(request, 404, "RepoNotFound")

    def _entry(self, file: Path, name_key: str) -> dict[str, object]:
        size = file.stat().st_size
        if file.suffix != ".safetensors":
            blob = hashlib.sha1(b"blob %d\0" % size + file.read_bytes()).hexdigest()
            return {name_key: file.name, "size": size, **({"blobId": blob} if self.blob_ids else {})}
        size = self.claimed_size or size
        sha256 = self.claimed_sha256 or digest(file)
        lfs = {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 134}
        return {name_key: file.name, "size": size, "lfs": lfs}

    def _send_file(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        if self.refuses[0]:
            self._refuse(request, *self.refuses)
            return
        content, is_weights = file.read_bytes(), file.suffix == ".safetensors"
        start = int(re.sub(r"\D", "", request.headers.get("Range", "bytes=0-"))) * self.knows_ranges
        headers = {"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT, **self.headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if request.command == "GET":
            self.sent.append((file.name, start))
        if is_weights and self.damages:
            content = bytes(len(content))
        if file.name == self.short:
            content = content[:-1]
        if file.name == self.endless and request.command == "GET":
            self._send_without_end(request)
            return
        most = None
        if is_weights and request.command == "GET" and self.breaks_after:
            most = self.breaks_after.pop(0)
            self.refuses = (503, "") if self.ends_with_break else self.refuses
        self._send(request, content[start:], headers, 206 if start else 200, most, is_weights and self.slowly)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        content: bytes,
        headers: dict[str, str] | None = None,
        status: int = 200,
        most: int | None = None,
        slowly: bool = False,
    ) -> None:
        request.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        request.wfile.write(content[: MEBIBYTE if slowly else most])
        while slowly and self.slowly:
            time.sleep(0.05)

    def _send_without_end(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        with suppress(OSError):  # the other side has had enough
            for _ in range(1000):
                request.wfile.write(bytes(MEBIBYTE))

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        for key, value in self.wait_headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", "0")
        request.end_headers()


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    (folder / "training.log").write_text("not needed")
    for other in ("pytorch_model.bin", "consolidated.safetensors", "model-00001-of-00001.safetensors"):
        (folder / other).write_bytes(bytes(1000))
    (folder / "README.md").write_text("# A model")
    hub = Hub(folder)
    yield hub
    hub.close()


def environment(home: Path, endpoint: str = NOWHERE, **more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    ours = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return inherited | ours | more


def topreward(
    *arguments: object, home: Path, endpoint: str = NOWHERE, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `topreward` to its end, where most of its libraries are imported already."""
    return completed(MODULE, arguments, environment(home, endpoint, **more))


def started(*arguments: object, home: Path, endpoint: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    """Start `topreward` as a shell does, and wait for its end."""
    command, where = [*COMMAND, *map(str, arguments)], environment(home, endpoint)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=where)


def download(hub: Hub, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return topreward("models", "download", NAME, home=home, endpoint=hub.endpoint, **more)


def cached(home: Path) -> Path:
    return home / "hub" / "models--some-org--some-model"


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, which is all that was said."""
    assert result.returncode == 1 and result.stdout == "", result
    (line,) = result.stderr.splitlines()
    assert line.startswith("topreward: ")
    return line.removeprefix("topreward: ")


def in_the_hub_cache(folder: Path, home: Path) -> Path:
    """Move a checkpoint to where a download of NAME would have put it."""
    (cached(home) / "refs").mkdir(parents=True)
    (cached(home) / "refs" / "main").write_text(COMMIT)
    (cached(home) / "snapshots").mkdir()
    return folder.rename(cached(home) / "snapshots" / COMMIT)


# ---- list and info -----------------------------------------------------------------------------------


def test_help_names_every_action(tmp_path: Path) -> None:
    result = started("models", "--help", home=tmp_path)
    assert result.returncode == 0
    assert all(action in result.stdout for action in ("list", "info", "download", "check"))
    for arguments in (["models"], ["models", "info"], ["models", "fly"]):
        assert started(*arguments, home=tmp_path).returncode == 2


def listed(home: Path, **more: str) -> dict[str, str]:
    """What `models list` says of each model, by name."""
    result = topreward("models", "list", home=home, **more)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    rows = result.stdout.splitlines()[1:]
    return {row.split()[0]: row.partition(" ")[2].strip() for row in rows if row.strip()}


def test_list_tells_what_is_here_what_is_incomplete_and_what_can_be_got(folder: Path, tmp_path: Path) -> None:
    models = listed(tmp_path / "nothing")
    assert models["embedded"].startswith("here")
    assert models["Qwen/Qwen3-VL-8B-Instruct"].startswith("not here") and NAME not in models

    snapshot = in_the_hub_cache(folder, tmp_path / "home")
    assert re.match(r"here +3\.2 MB", listed(tmp_path / "home")[NAME])
    elsewhere = {"HF_HUB_CACHE": str(tmp_path / "home" / "hub")}
    assert listed(tmp_path / "nothing", **elsewhere)[NAME].startswith("here")

    (cached(tmp_path / "home") / "refs" / "main").unlink()  # which a download writes at its end
    assert listed(tmp_path / "home")[NAME].startswith("incomplete")
    (cached(tmp_path / "home") / "refs" / "main").write_text(COMMIT)
    (snapshot / WEIGHTS).unlink()
    assert listed(tmp_path / "home")[NAME].startswith("incomplete")
    (snapshot / "config.json").write_text('{"model_type": "bert"}')
    assert NAME not in listed(tmp_path / "home"), "a model of another kind is none of ours"


INSTRUCTIONS = {
    "open the drawer": ["open the drawer", "pull the drawer open"],
    "close the drawer": ["close the drawer", "push the drawer shut"],
}


def annotate(folder: Path, **notes: object) -> None:
    standard = {
        "frame_pixels": 6144,
        "model_summary": "a model for tests",
        "sha256": digest(folder / WEIGHTS),
        "instructions": INSTRUCTIONS,
    }
    (folder / "topreward.json").write_text(json.dumps(standard | notes))


def test_info_says_what_is_in_a_folder(folder: Path, tmp_path: Path) -> None:
    annotate(folder)
    (folder / "README.md").write_text("# Card")
    result = topreward("models", "info", folder, home=tmp_path)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    said = " ".join(result.stdout.split())
    weights = digest(folder / WEIGHTS)
    assert f"folder {folder} revision {weights[:16]} SHA-256 {weights} (matches)" in said
    assert "a model for tests random weights: the numbers mean nothing" in said
    assert re.search(r"parameters 1\.59 million, BF16 weights 3\.2 MB prompt [0-9a-f]{16}", said)
    assert "frame at most 6144 pixels" in said and f"model card {folder / 'README.md'}" in said
    assert "open the drawer 2" in said and "close the drawer 2" in said and "pull the drawer open" not in said
    result = topreward("models", "info", folder, "--wordings", home=tmp_path)
    said = " ".join(result.stdout.split())
    assert "open the drawer pull the drawer open" in said and "close the drawer push the drawer shut" in said


def test_info_and_check_find_weights_that_are_not_those_of_the_notes(folder: Path, tmp_path: Path) -> None:
    annotate(folder, sha256="ab" * 32)
    assert "does NOT match" in topreward("models", "info", folder, home=tmp_path).stdout
    line = refused(topreward("models", "check", folder, home=tmp_path))
    assert "ab" * 32 in line and digest(folder / WEIGHTS) in line and "install the model again" in line


def test_info_of_what_is_not_there_or_damaged_is_one_line(folder: Path, tmp_path: Path) -> None:
    line = refused(topreward("models", "info", NAME, home=tmp_path))
    assert f"{NAME!r} is no folder and is not on this machine" in line
    assert f"get it with `topreward models download {NAME}`" in line
    (folder / WEIGHTS).write_bytes(b"short")
    assert f"{folder / WEIGHTS} cannot be read" in refused(topreward("models", "info", folder, home=tmp_path))


# ---- check -------------------------------------------------------------------------------------------


def test_check_scores_the_shipped_video(folder: Path, tmp_path: Path) -> None:
    in_the_hub_cache(folder, tmp_path)
    result = started("models", "check", NAME, home=tmp_path)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    said = " ".join(result.stdout.split())
    assert f"model {NAME} ({COMMIT}) random weights: the numbers mean nothing runs on" in said
    assert re.search(r"loading \d+\.\d\d s answer one token", said)
    assert re.search(r"scoring \d+\.\d{3} s per score, 22 scores", said)
    start, end = map(float, re.findall(r"(-\d+\.\d{3}) (?:at the start|nat)", said))
    assert start < 0 and end < 0 and start != end
    assert "demo_success.mp4: open the drawer" in said


def test_check_of_a_damaged_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "copy it again" in refused(topreward("models", "check", folder, home=tmp_path))


def test_check_warns_when_the_video_shows_what_the_model_does_not_know(folder: Path, tmp_path: Path) -> None:
    annotate(folder, instructions={"close the drawer": []})
    result = topreward("models", "check", folder, home=tmp_path)
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert "does not know the instruction 'open the drawer'" in line and "'close the drawer'" in line


def test_check_takes_parameters_and_tells_what_they_cost(tmp_path: Path) -> None:
    how = ("--set", "max_frames=1024", "--set", "dtype=bfloat16")
    result = topreward("models", "check", "embedded", *how, home=tmp_path)
    assert result.returncode == 0, result.stderr
    small, falls = result.stderr.splitlines()
    assert small.startswith("topreward: model 'embedded': max_frames is 1024: ")
    assert small.endswith("with max_frames 64 at most a frame keeps its size")
    assert falls.endswith("; or it is for what was set")
    assert "in bfloat16" in result.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("success_threshold=-1", "models check takes no parameter 'success_threshold'"),
        ("prompts=roboreward", "models check takes no parameter 'prompts'"),
        ("max_frames=7", "--set max_frames = 7"),
        ("adapter=/no/such", "adapter '/no/such'"),
    ],
)
def test_parameters_that_a_check_cannot_follow(change: str, said: str, tmp_path: Path) -> None:
    assert said in refused(topreward("models", "check", "embedded", "--set", change, home=tmp_path))


def test_a_check_has_a_time_limit(folder: Path, tmp_path: Path) -> None:
    line = refused(topreward("models", "check", folder, "--time-limit", "0.1", home=tmp_path))
    assert line.startswith(f"checking model {folder} was not done after 0.1 s: ") and "--time-limit" in line
    assert topreward("models", "check", folder, "--time-limit", "0", home=tmp_path).returncode == 2


# ---- download ----------------------------------------------------------------------------------------


def test_what_needs_no_download_says_so(folder: Path, tmp_path: Path) -> None:
    for name in ("embedded", folder):
        result = topreward("models", "download", name, home=tmp_path)
        assert result.returncode == 0 and "nothing is to be downloaded" in result.stdout
    assert "is no model of the hub" in refused(topreward("models", "download", "nowhere", home=tmp_path))


def test_only_the_shards_that_the_index_names_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    weights = load_file(hub.folder / WEIGHTS)
    (hub.folder / WEIGHTS).unlink()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: shards[i % 2] for i, name in enumerate(sorted(weights))}
    for shard in shards:
        save_file({name: weights[name] for name in weights if where[name] == shard}, hub.folder / shard)
    (hub.folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": where}))
    result = download(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted({name for name, _ in hub.sent if name.endswith(".safetensors")}) == shards


def test_a_download_makes_a_model_that_works_without_network(hub: Hub, tmp_path: Path) -> None:
    result = started("models", "download", NAME, home=tmp_path, endpoint=hub.endpoint)
    assert result.returncode == 0, result.stderr
    snapshot = cached(tmp_path) / "snapshots" / COMMIT
    assert f"{NAME} is in {snapshot}; use it with model:={NAME}" in result.stdout
    (announced,) = result.stderr.splitlines()  # and no progress bar, where there is no terminal
    assert announced == f"{NAME}: 5 files, 3.2 MB, to {cached(tmp_path)}"
    assert digest(snapshot / WEIGHTS) == digest(hub.folder / WEIGHTS)
    wanted = {"README.md", "config.json", WEIGHTS, "tokenizer.json"}
    assert wanted <= {name for name, _ in hub.sent}
    assert not {"training.log", "pytorch_model.bin"} & {name for name, _ in hub.sent}
    assert [name for name, _ in hub.sent if name.endswith(".safetensors")] == [WEIGHTS]

    requests = hub.requests
    assert started("models", "check", NAME, home=tmp_path, endpoint=hub.endpoint).returncode == 0
    assert hub.requests == requests, "at run time the hub is not asked"
    sent = len(hub.sent)
    again = download(hub, tmp_path)
    assert again.returncode == 0 and again.stderr == "" and len(hub.sent) == sent, "nothing was missing"


def test_a_robometer_comes_with_the_tokenizer_of_its_base_and_no_more_of_it(hub: Hub, tmp_path: Path) -> None:
    hub.folder = make_robometer(tmp_path / "robometer", alone=True)
    hub.others = {BASE: tmp_path / "robometer-base"}
    line = refused(topreward("models", "info", hub.folder, home=tmp_path / "home"))
    assert f"has no tokenizer.json: it has that of {BASE}, the model that it was trained from" in line
    result = download(hub, tmp_path / "home")
    assert result.returncode == 0, result.stderr
    assert [name for name, _ in hub.sent if name == WEIGHTS] == [WEIGHTS], "the base's weights are not needed"
    told = topreward("models", "info", NAME, home=tmp_path / "home")
    assert told.returncode == 0 and "a full forward pass over at most 8 frames" in told.stdout, told
    hub.others, hub.sent = {}, []
    line = refused(download(hub, tmp_path / "other"))
    assert f"the hub knows no model {BASE}" in line and WEIGHTS not in [name for name, _ in hub.sent]


def test_at_run_time_nothing_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    video = Path(__file__).parents[2] / "media/demo_success.mp4"
    arguments = ("score", video, "--task", "x", "--model", NAME)
    line = refused(topreward(*arguments, home=tmp_path, endpoint=hub.endpoint))
    assert f"get it with `topreward models download {NAME}`" in line
    assert hub.requests == 0


def test_a_break_in_the_middle_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_after = [MEBIBYTE]
    result = download(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert len([name for name, _ in hub.sent if name == WEIGHTS]) == 2
    assert digest(cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS) == digest(hub.folder / WEIGHTS)
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_hub_that_always_begins_anew_does_no_harm(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_after, hub.knows_ranges = [MEBIBYTE, 2 * MEBIBYTE], False
    assert download(hub, tmp_path).returncode == 0
    assert [start for name, start in hub.sent if name == WEIGHTS] == [0, 0, 0]
    assert digest(cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS) == digest(hub.folder / WEIGHTS)


def test_a_download_that_failed_goes_on_with_the_file_at_which_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_after, hub.ends_with_break = [MEBIBYTE], True
    result = download(hub, tmp_path)
    assert result.returncode == 1 and "files that are complete are kept" in result.stderr.splitlines()[-1]
    missing = topreward("models", "info", NAME, home=tmp_path)
    assert "is not on this machine" in refused(missing), "a model is there in whole or not at all"
    assert listed(tmp_path)[NAME].startswith("incomplete")

    hub.refuses = 0, ""
    hub.sent.clear()
    assert download(hub, tmp_path).returncode == 0
    assert [name for name, _ in hub.sent] == [WEIGHTS], "the others are there"
    assert digest(cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS) == digest(hub.folder / WEIGHTS)
    assert not list(cached(tmp_path).rglob("*.incomplete"))


def test_ctrl_c_on_a_terminal_ends_it_at_once(hub: Hub, tmp_path: Path, interrupted_on_a_terminal) -> None:
    hub.slowly = True
    command = [*COMMAND, "models", "download", NAME]
    progress_bar = b"/3.2 MB"
    status, said = interrupted_on_a_terminal(command, environment(tmp_path, hub.endpoint), progress_bar)
    assert status == 130 and hub.slowly, "it did not wait for the hub"
    assert b"interrupted" in said and b"Traceback" not in said
    assert listed(tmp_path)[NAME].startswith("incomplete")
    hub.slowly = False
    assert download(hub, tmp_path).returncode == 0


def test_what_a_killed_download_leaves_is_removed_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.slowly = True
    command = [*COMMAND, "models", "download", NAME]
    process = subprocess.Popen(
        command, env=environment(tmp_path, hub.endpoint), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    parts = f"{digest(hub.folder / WEIGHTS)}*.incomplete"
    end = time.monotonic() + 60.0
    while not list((cached(tmp_path) / "blobs").glob(parts)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list((cached(tmp_path) / "blobs").glob(parts))
    hub.slowly = False
    assert download(hub, tmp_path).returncode == 0
    assert not list((cached(tmp_path) / "blobs").glob("*.incomplete"))


def test_weights_that_arrive_damaged_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.damages = True
    assert "arrived damaged" in download(hub, tmp_path).stderr.splitlines()[-1]
    assert not list((cached(tmp_path) / "blobs").glob(digest(hub.folder / WEIGHTS) + "*"))


def test_a_model_counts_only_once_its_weights_have_been_checked(hub: Hub, tmp_path: Path) -> None:
    """Who is killed between the last byte and the check leaves files that nobody has checked."""
    assert download(hub, tmp_path).returncode == 0
    weights = cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    (cached(tmp_path) / "refs" / "main").unlink()
    assert "arrived damaged" in refused(download(hub, tmp_path))
    assert download(hub, tmp_path).returncode == 0
    assert digest(weights) == digest(hub.folder / WEIGHTS)


def test_two_downloads_at_once_do_not_mix(hub: Hub, tmp_path: Path) -> None:
    command, where = [*COMMAND, "models", "download", NAME], environment(tmp_path, hub.endpoint)
    both = [subprocess.Popen(command, env=where, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[1].count("Error") == 0 and process.returncode == 0
    assert digest(cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS) == digest(hub.folder / WEIGHTS)
    assert not list((cached(tmp_path) / "blobs").glob("*.incomplete"))


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "home" not in path.relative_to(folder).parts
    }


@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_body_without_end_is_given_up_at_the_stated_size(hub: Hub, tmp_path: Path, file: str) -> None:
    hub.endless = file
    line = download(hub, tmp_path).stderr.splitlines()[-1]
    size = (hub.folder / file).stat().st_size
    assert f"{file} of {NAME} is longer than the {size} bytes that the hub states, and was given up" in line
    assert "check HF_ENDPOINT" in line
    assert not list(cached(tmp_path).rglob("*.incomplete"))
    assert not (cached(tmp_path) / "snapshots" / COMMIT / file).exists()


LIES: tuple[dict[str, object], ...] = (
    {"claimed_sha256": "{victim}"},
    {"claimed_sha256": "../../../../victim"},
    {"claimed_sha256": "ab" * 31},
    {"headers": {"ETag": '"{victim}"'}},
    {"headers": {"ETag": '"../../../../victim"'}},
    {"headers": {"X-Linked-Etag": '"../../../../new"'}},
    {"headers": {"ETag": 'W/".."'}},
    {"headers": {"X-Repo-Commit": "../../../../new"}},
    {"headers": {"X-Repo-Commit": "ab" * 20}},
    {"claimed_commit": "../../../../new"},
    {"claimed_commit": "main"},
    {"claimed_size": "many"},
)


def test_nothing_that_a_hub_says_becomes_a_path(hub: Hub, tmp_path: Path) -> None:
    """All lies in one process, whose imports take longer than they."""
    victim = tmp_path / "victim"
    victim.write_text("of somebody else")
    code = (
        "import sys\n"
        "from topreward_ros.core.errors import UserError\n"
        "from topreward_ros.offline.model_download import download_model\n"
        "for name in sys.stdin:\n"
        "    try: print('arrived in', download_model(name.strip(), None), flush=True)\n"
        "    except UserError as error: print(error, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(tmp_path / "home", hub.endpoint),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    before, honest = everything(tmp_path), {name: getattr(hub, name) for lie in LIES for name in lie}
    for lie in LIES:
        for name, value in (honest | lie).items():
            setattr(hub, name, json.loads(json.dumps(value).replace("{victim}", str(victim))))
        process.stdin.write(f"{NAME}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert "it is no hub, or a broken one: check HF_ENDPOINT" in line, (lie, line)
        assert everything(tmp_path) == before, lie
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_hub_that_was_away_for_a_moment_is_trusted_no_more_than_before(hub: Hub, tmp_path: Path) -> None:
    """After an error of the network the library asks again with another client."""
    new = tmp_path / "new.txt"
    hub.headers, hub.closes_once = {"ETag": f'"{new}"'}, True
    line = refused(download(hub, tmp_path / "home"))
    assert "the hub gives a file the ETag '\"/" in line and "which is no name" in line
    assert not new.exists() and hub.sent == [] and not hub.closes_once


def test_chunks_come_from_the_web_alone(hub: Hub, tmp_path: Path) -> None:
    """To a local:// store hf_xet makes folders and a database, wherever it is."""
    pytest.importorskip("hf_xet", reason="files come in chunks by hf_xet alone")
    store = f"local://{tmp_path / 'new'}"
    hub.headers = {
        "X-Xet-Hash": "ab" * 32,
        "X-Xet-Refresh-Route": f"{hub.endpoint}/{NAME}/resolve/{COMMIT}/config.json",
        "X-Xet-Access-Token": "a",
        "X-Xet-Token-Expiration": "9999999999",
        "X-Xet-Cas-Url": store,
    }
    assert f"'{store:.79}" in (line := refused(download(hub, tmp_path / "home"))) and "no web address" in line
    assert not (tmp_path / "new").exists()


def test_a_hub_that_was_away_for_a_moment_serves_a_download(hub: Hub, tmp_path: Path) -> None:
    hub.closes_once = True
    assert download(hub, tmp_path).returncode == 0
    assert digest(cached(tmp_path) / "snapshots" / COMMIT / WEIGHTS) == digest(hub.folder / WEIGHTS)


def test_a_hub_that_wants_to_be_left_alone_for_long_is(hub: Hub, tmp_path: Path) -> None:
    hub.refuses, hub.wait_headers = (429, ""), {"ratelimit": '"api";r=0;t=3000', "Retry-After": "1"}
    line = refused(download(hub, tmp_path))
    assert "the hub answers with status 429 and wants no request for 3000 s" in line


def test_a_small_file_that_is_short_does_not_count_and_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.short, size = "tokenizer_config.json", (hub.folder / "tokenizer_config.json").stat().st_size
    line = download(hub, tmp_path).stderr.splitlines()[-1]
    assert f"{hub.short} of {NAME} arrived damaged: it has {size - 1} bytes instead of {size}" in line
    hub.short = ""
    assert download(hub, tmp_path).returncode == 0
    here = cached(tmp_path) / "snapshots" / COMMIT / "tokenizer_config.json"
    whole = here.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b" "):
        hub.blob_ids = True
        here.write_bytes(damaged)
        result = download(hub, tmp_path)
        assert result.returncode == 0 and here.read_bytes() == whole, result.stderr


def test_a_list_of_files_without_end_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.endless_list = True
    line = refused(download(hub, tmp_path))
    assert "an answer of the hub was given up after 6" in line and "check HF_ENDPOINT" in line


def test_names_that_are_no_text_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.more_names = [5]
    assert "the hub names a file of some-org/some-model 5, no text" in refused(download(hub, tmp_path))


def test_a_file_that_leads_out_of_the_cache_does_not_count(hub: Hub, tmp_path: Path) -> None:
    """The second line: a link that lies in the cache under the name that the hub gives."""
    victim = tmp_path / "victim"
    victim.write_text('{"model_type": "qwen3_vl"}')
    (cached(tmp_path) / "blobs").mkdir(parents=True)
    (cached(tmp_path) / "blobs" / "evil").symlink_to(victim)
    hub.headers = {"ETag": '"evil"'}
    line = refused(download(hub, tmp_path))
    assert f"config.json of {NAME} leads to {victim}, outside the cache {cached(tmp_path)}" in line
    assert not (cached(tmp_path) / "snapshots" / COMMIT / "config.json").is_symlink()
    assert victim.exists() and hub.sent == []


def test_a_cache_that_is_a_link_is_the_cache(hub: Hub, tmp_path: Path) -> None:
    for place in (cached(tmp_path), cached(tmp_path) / "blobs"):
        disk = tmp_path / f"another-disk-{place.name}"
        disk.mkdir()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(disk)
    assert download(hub, tmp_path).returncode == 0


def test_files_with_other_names_are_left_out(hub: Hub, tmp_path: Path) -> None:
    hub.more_names = ["../evil.json", "/evil.json", "..", ".json", "a/b.json", "x\\..\\evil.json", ""]
    before = everything(tmp_path)
    assert download(hub, tmp_path / "home").returncode == 0
    assert everything(tmp_path) == before


def test_another_kind_of_model_is_refused_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "config.json").write_text('{"model_type": "bert"}')
    assert "of type 'bert', which transformers" in refused(download(hub, tmp_path))
    assert [name for name, _ in hub.sent] == ["config.json"]
    (hub.folder / "config.json").unlink()
    assert f"{NAME} has no config.json" in refused(download(hub, tmp_path))


def test_a_disk_without_room_is_seen_before_the_download(hub: Hub, tmp_path: Path) -> None:
    hub.claimed_size = 10**18
    line = refused(download(hub, tmp_path))
    assert re.search(r"1000000000\.\d\d GB are to be downloaded and \d+\.\d\d GB are free in .*HF_HOME", line)
    assert [name for name, _ in hub.sent] == ["config.json"]


def test_a_repository_without_all_files_is_named(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "tokenizer.json").unlink()
    result = download(hub, tmp_path)
    assert f"{NAME} has no tokenizer.json on the hub" in result.stderr.splitlines()[-1]


def test_why_the_hub_gives_nothing_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.refuses = 403, "GatedRepo"
    assert f"{NAME} is gated: accept its terms" in refused(download(hub, tmp_path))
    hub.refuses = 401, ""
    assert "log in by `hf auth login`" in refused(download(hub, tmp_path))
    hub.unknown = True
    assert f"the hub knows no model {NAME}: check the name" in refused(download(hub, tmp_path))
    assert "HF_HUB_OFFLINE is set" in refused(download(hub, tmp_path, HF_HUB_OFFLINE="1"))
    offline = topreward("models", "download", NAME, home=tmp_path)
    assert "cannot be downloaded (ConnectError" in refused(offline) and "check the network" in refused(
        offline
    )
    bad_name = topreward("models", "download", "a--b/c", home=tmp_path, endpoint=hub.endpoint)
    assert "a--b/c" in refused(bad_name)
