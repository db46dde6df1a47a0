"""The guides beside the notebook: both languages alike, and commands that can be read."""

import re
import shlex

import pytest
from accelerate.commands.launch import launch_command_parser
from conftest import ROOT
from torch.distributed.run import get_args_parser

from tutorial import train

GUIDES = ["setup_gcp", "scale", "README"]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("what", ["grey boxes", "headings", "links"])
def test_both_languages_have_the_same(guide, what):
    def found(text):
        text = text.replace("镜像的地址", "ADDRESS")  # to be filled in by the reader
        boxes = re.findall(r"(?ms)^```\w*\n.*?^```", text)
        if what == "grey boxes":
            return [re.sub(r"(?m) *#.*$", "", box) for box in boxes]
        for box in boxes:
            text = text.replace(box, "")
        if what == "headings":
            return [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
        links = re.findall(r"\]\((https?://[^)]+|[\w./-]+\.(?:md|ipynb))", text)
        return sorted(set(link.replace(".zh-CN", "") for link in links))

    assert found(text(f"{guide}.zh-CN.md")) == found(text(f"{guide}.md"))


@pytest.mark.parametrize(
    "name", [f"{guide}{end}" for guide in GUIDES for end in (".md", ".zh-CN.md")]
)
def test_links_within_a_guide_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\(([\w.-]*\.md|)#([^)]+)\)", text(name)):
        headings = re.findall(r"^#+ (.*)$", text(target or name), re.M)
        assert anchor in map(slug, headings), f"{target}#{anchor}"


@pytest.mark.parametrize(
    "name", [f"{guide}{end}" for guide in GUIDES for end in (".md", ".zh-CN.md")]
)
def test_a_line_to_type_ends_without_a_comment(name):
    """The shell of macOS would take it for a part of the command."""
    for box in re.findall(r"(?ms)^```bash\n(.*?)^```", text(name)):
        assert not re.search(r"(?m)^[^#\n].* #", box)


def test_the_commands_of_scale_can_be_read():
    commands = [
        shlex.split(line)
        for box in re.findall(r"(?ms)^```bash\n(.*?)^```", text("scale.md"))
        for line in box.splitlines()
    ]
    assert len(commands) == 4
    for words in commands:
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
