"""`pip install . --no-build-isolation`, in an environment that has ROS 2: packs what CMake installs.

CMakeLists.txt alone says what is built and installed. Here it is run into a staging folder, and the
wheel takes the Python package from there as its package and everything else (message libraries,
share/, lib/topreward_ros/) as data files of the environment. Metadata stands in setup.cfg.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

NAME = "topreward_ros"
SOURCE = Path(__file__).resolve().parent


def ros_environment() -> dict[str, str]:
    """Return the environment for CMake; ROS 2 wheels live in ``sys.prefix``, which nobody sources."""
    environment = dict(os.environ)
    if Path(sys.prefix, "share", "ament_cmake").is_dir():
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            prefixes = [sys.prefix, *environment.get(name, "").split(os.pathsep)]
            environment[name] = os.pathsep.join(dict.fromkeys(filter(None, prefixes)))
    if not environment.get("AMENT_PREFIX_PATH"):
        raise SystemExit(
            f"topreward_ros: no ROS 2 found in {sys.prefix} and none is sourced; source your ROS 2 "
            "(for example /opt/ros/jazzy/setup.bash) or run `make setup`"
        )
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    )
    return environment


def generators(prefixes: str) -> str:
    """Return what `prefixes` state of the packages that generate code for messages, versions included.

    Jazzy and Kilted may lie in one folder one after the other, and an update may change a ROS 2 in its place.
    """
    packages = (
        Path(prefix, "share", "rosidl_generator_py", "package.xml") for prefix in prefixes.split(os.pathsep)
    )
    return "".join(package.read_text(encoding="utf-8") for package in packages if package.is_file())


def run_cmake() -> Path:
    """Configure once, build what changed, install all of it into an empty staging folder and return that."""
    environment = ros_environment()
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise SystemExit("topreward_ros: cmake is missing; install it with `sudo apt install cmake`")
    # Kept between runs, one per Python and ROS 2, so that a change in Python only compiles nothing.
    prefixes = environment["AMENT_PREFIX_PATH"]
    key = f"{sys.prefix} {sys.implementation.cache_tag} {prefixes} {generators(prefixes)}"
    build = SOURCE / "build" / f"cmake-{crc32(key.encode()):08x}"
    stage = build / "stage"
    if not (build / "CMakeCache.txt").exists():
        options = [
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={stage}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        if shutil.which("ninja", path=environment["PATH"]):
            options.append("-GNinja")
        try:
            subprocess.run([cmake, f"-S{SOURCE}", f"-B{build}", *options], check=True, env=environment)
        except subprocess.CalledProcessError:
            (build / "CMakeCache.txt").unlink(missing_ok=True)
            raise
    subprocess.run([cmake, "--build", str(build), "--parallel"], check=True, env=environment)
    shutil.rmtree(stage, ignore_errors=True)
    subprocess.run([cmake, "--install", str(build)], check=True, env=environment, stdout=subprocess.DEVNULL)
    return stage


def data_files(stage: Path, package: Path) -> list[tuple[str, list[str]]]:
    """Return every staged file outside the Python packages, by its folder in the environment."""
    folders: dict[str, list[str]] = {}
    for path in sorted(stage.rglob("*")):
        if path.is_file() and package.parent not in path.parents:
            folder = path.parent.relative_to(stage).as_posix()
            folders.setdefault(folder, []).append(str(path.relative_to(SOURCE)))
    return list(folders.items())


def point_at_this_python(programs: Path) -> None:
    """Let the installed programs run without an activated environment, as pip's own scripts do."""
    for program in programs.iterdir():
        lines = program.read_text().split("\n")
        program.write_text("\n".join([f"#!{sys.executable}", *lines[1:]]))


class BuildInterfacesAndPackage(build_py):
    """Take the package from CMake's staging folder instead of the source tree."""

    def run(self) -> None:
        stage = run_cmake()
        (package,) = (path.parent.parent for path in stage.rglob(f"{NAME}/msg/__init__.py"))
        point_at_this_python(stage / "lib" / NAME)
        target = Path(self.build_lib, NAME)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
        self.distribution.data_files = data_files(stage, package)


class PlatformDistribution(Distribution):
    """The message libraries are compiled, so the wheel belongs to one platform and one Python."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    packages=[NAME],
    data_files=[("share", [])],  # filled while building; must not be empty before
    cmdclass={"build_py": BuildInterfacesAndPackage},
    distclass=PlatformDistribution,
)
