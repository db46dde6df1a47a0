"""The guides beside the notebook: both languages alike, links and commands that are true."""

import re
import shlex
import subprocess

import pytest
from accelerate.commands.launch import launch_command_parser
from conftest import ROOT
from torch.distributed.run import get_args_parser

from tutorial import train

GUIDES = ["setup_gcp", "scale", "README"]
FILES = [f"{guide}{end}" for guide in GUIDES for end in (".md", ".zh-CN.md")]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def boxes(text):
    """The grey boxes of a text, with their fences."""
    return re.findall(r"(?ms)^```\w*\n.*?^```", text)


def commands(name):
    """What a guide gives to type, line by line."""
    found = [box.splitlines()[1:-1] for box in boxes(text(name)) if box.startswith("```bash\n")]
    return [line for lines in found for line in lines]


@pytest.mark.parametrize("guide", GUIDES)
def test_both_languages_have_the_same_boxes_headings_and_links(guide):
    def found(text):
        text = text.replace("镜像的地址", "ADDRESS")  # to be filled in by the reader
        code = [re.sub(r"(?m) *#.*$", "", box) for box in boxes(text)]
        for box in boxes(text):
            text = text.replace(box, "")
        headings = [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
        links = re.findall(r"\]\((https?://[^)]+|[\w./-]+\.(?:md|ipynb))", text)
        return code, headings, sorted({link.replace(".zh-CN", "") for link in links})

    assert found(text(f"{guide}.zh-CN.md")) == found(text(f"{guide}.md"))


@pytest.mark.parametrize("name", FILES)
def test_links_lead_somewhere(name):
    links = re.findall(r"""\]\(([^)\s]+)|(?:src|href)=["']([^"']+)""", text(name))
    for link in [a or b for a, b in links if not re.match("[a-z]+:", a or b)]:
        target, _, anchor = link.partition("#")
        assert (ROOT / target).exists(), link
        if anchor and not target.endswith(".ipynb"):
            headings = re.findall(r"(?m)^#+ (.*)$", text(target or name))
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, link


@pytest.mark.parametrize("name", FILES)
def test_what_is_to_be_typed_can_be(name):
    for line in commands(name):
        # The shell of macOS would take a comment for a part of the command.
        assert line.startswith("#") or " #" not in line
        shlex.split(line)
    for target in set(re.findall(r"(?m)(?:`|^)(?:[A-Z]+=\S+ )*make ([a-z-]+)", text(name))):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, target


def test_the_commands_of_scale_are_understood():
    found = [shlex.split(line) for line in commands("scale.md")]
    assert found
    for words in found:
        i = words.index("tutorial.train")
        assert train.options(words[i + 1 :]).folder.name == "my_pictures"
        program, *before = words[: i + 1]
        if program.endswith("torchrun"):
            assert get_args_parser().parse_args(before).training_script == "tutorial.train"
        elif program.endswith("accelerate"):
            assert before[0] == "launch"
            assert launch_command_parser().parse_args(before[1:]).multi_gpu
        else:
            assert (program, before) == (".venv/bin/python", ["-m", "tutorial.train"])
