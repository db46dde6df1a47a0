"""What a folder of pictures can have, in English and in Chinese: meaning and advice."""

from pathlib import Path
from typing import NamedTuple

BATCH = 16  # pictures in a batch, as in the notebook
SMALL = 64  # pixels on the shorter side: blown up more than three times to 224
SLOW = 6_000_000  # pixels: to read so many takes longer than to learn from them
UNEVEN = 3  # times as many pictures in the largest class as in the smallest


class Problem(NamedTuple):
    """A kind of finding."""

    chinese: str
    stops: bool  # whether training stops
    advice: str  # what it means and what to do
    advice_zh: str


class Finding(NamedTuple):
    """Something found: where, and which of the `PROBLEMS`."""

    place: Path
    problem: str
    detail: str = ""

    @property
    def stops(self):
        """Whether it stops training."""
        return PROBLEMS[self.problem].stops

    def __str__(self):
        return f"{printable(self.place)}: {self.problem}. {PROBLEMS[self.problem].advice}"


def printable(text):
    """Write out what would break a line or cannot be encoded."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def worst_first(findings):
    """Return the findings in the order of `PROBLEMS`: causes before what follows from them."""
    order = list(PROBLEMS)
    return sorted(findings, key=lambda finding: order.index(finding.problem))


STOPS, KNOW = True, False
# fmt: off
PROBLEMS = {
    "unreadable": Problem("无法读取", STOPS,
        "It cannot be opened: no permission, a broken link, or no ordinary file. Take it out.",
        "打不开：没有权限、链接失效，或不是普通文件。请修好或移走。"),
    "link in a circle": Problem("链接绕回自身", STOPS,
        "This link leads back to a folder above it, and fastai would go round. Take it out.",
        "这个链接指回上层文件夹，fastai 会一直绕圈。请删掉它。"),
    "split inside a class": Problem("类别里藏着 train 或 valid", STOPS,
        "It lies deeper than a class folder, but within a folder named train or valid: fastai"
        " would use its pictures, too. Move or rename that folder.",
        "它比类别文件夹更深，却在一个名叫 train 或 valid 的文件夹里，fastai 会把这些图片也拿来用。"
        "请移走那个文件夹，或者改名。"),
    "no train folder": Problem("没有 train 文件夹", STOPS,
        "No folder named train holds classes. If yours lie here side by side,"
        " split_images(path, new_folder) writes a copy with train and valid.",
        "没有装着各个类别的 train 文件夹。如果各个类别的文件夹直接放在这里，"
        "split_images(path, new_folder) 会另外复制一份，分成 train 和 valid。"),
    "no valid folder": Problem("没有 valid 文件夹", STOPS,
        "There is no folder named valid. If yours is called val, rename it; if you have none,"
        " split_images(path, new_folder) writes a copy that is split.",
        "找不到名为 valid 的文件夹。如果它叫 val 之类的名字，请改名；如果根本没有，"
        "split_images(path, new_folder) 会另外复制一份分好的。"),
    "fewer than two classes": Problem("不足两个类别", STOPS,
        "With one class there is nothing to tell apart. Give each class a folder of its own.",
        "只有一个类别就谈不上分类。请给每个类别单独建一个文件夹。"),
    "too few pictures": Problem("图片太少", STOPS,
        f"Training needs at least {BATCH} pictures, one batch. Add some.",
        f"训练至少需要 {BATCH} 张图片，也就是一个批次。请再添一些。"),
    "class only in train": Problem("类别只在训练集里", STOPS,
        "valid has no picture of this class, so nobody can tell how well it is learned. Add some.",
        "验证集里没有这个类别，学得好不好无从知道。请挪几张过去。"),
    "class only in valid": Problem("类别只在验证集里", STOPS,
        "train has no picture of this class, so it cannot be learned. Add some, or mend the name.",
        "训练集里没有这个类别，根本学不到。请补上图片，或改正名字。"),
    "not an image": Problem("不是图片", STOPS,
        "It is named like a picture, but Pillow finds none in it: perhaps a web page, an empty"
        " file, HEIC, SVG or RAW. Save it as JPEG, or take it out.",
        "名字像图片，Pillow 却读不出图片来：也许是网页、空文件，或者 HEIC、SVG、RAW 格式。"
        "请另存为 JPEG，或者移走。"),
    "truncated": Problem("文件不完整", STOPS,
        "The file ends too soon, as after a broken download. Fetch it again, or take it out.",
        "文件没到头就断了，多半是下载中断造成的。请重新获取，或者移走。"),
    "damaged": Problem("文件损坏", STOPS,
        "It begins like a picture but cannot be decoded. Fetch it again, or take it out.",
        "开头像图片，内容却解不出来。请重新获取，或者移走。"),
    "far too huge": Problem("大得离谱", STOPS,
        "It has so many pixels that Pillow refuses it as a decompression bomb. Shrink a copy.",
        "像素太多，Pillow 怀疑它是“解压炸弹”，拒绝打开。请换成缩小后的图片。"),
    "in two splits": Problem("跨数据集重复", KNOW,
        "Byte for byte the same picture in two of train, valid and test flatters the result.",
        "训练、验证、测试集里有相同的图片，结果会显得偏好。只留一张。"),
    "in two classes": Problem("跨类别重复", KNOW,
        "Byte for byte the same picture in two classes: one label is wrong. Keep the right one.",
        "两个类别里有相同的图片，其中一个标签错了。只留对的那张。"),
    "duplicate": Problem("重复", KNOW,
        "Byte for byte the same as another file, so it counts twice. Keep one.",
        "和另一个文件完全相同，等于算了两遍。请只留一张。"),
    "imbalance": Problem("类别不均衡", KNOW,
        f"The largest class has more than {UNEVEN} times as many pictures as the smallest:"
        " accuracy alone will flatter. Look at the confusion matrix.",
        f"最大类别的图片数是最小类别的 {UNEVEN} 倍以上，只看准确率会过于乐观。"
        "请结合混淆矩阵来看。"),
    "empty class": Problem("空类别", KNOW,
        "No picture lies directly in this folder, so it is no class.",
        "文件夹里没有直接放着的图片，所以不会被当作一个类别。"),
    "names almost alike": Problem("名字几乎相同", KNOW,
        "These differ only in capitals or spaces, yet count as two classes. Give them one name.",
        "这些名字只差在大小写或空格，却算作不同类别。请统一名字。"),
    "outside a class": Problem("不在类别文件夹里", KNOW,
        "It lies beside the class folders and is passed over. Move it into its class.",
        "它和类别文件夹放在同一层，会被跳过。请移进它所属的类别。"),
    "nested folder": Problem("类别里还有文件夹", KNOW,
        "Only pictures directly in a class folder count; those in here are passed over.",
        "只有直接放在类别文件夹里的图片才算数，这里面的都会被跳过。"),
    "test picture without a class": Problem("看不出类别的测试图片", KNOW,
        "Neither its name nor its folder tells a class: it gets a guess, but no verdict.",
        "从文件名和文件夹都看不出类别：网络会给出判断，但没法评对错。"),
    "16-bit or more": Problem("16 位或更高", KNOW,
        "fastai cuts off all values above 255, so that it mostly turns white. Save it as 8-bit.",
        "fastai 会截掉大于 255 的值，图片大多变白。请换算成 8 位。"),
    "CMYK": Problem("CMYK", KNOW,
        "Colours for printing; turned into RGB they may look off. Better save it as RGB.",
        "这是印刷用的颜色模式，转成 RGB 后可能偏色。最好另存为 RGB。"),
    "transparent": Problem("有透明部分", KNOW,
        "fastai drops transparency and shows the colour beneath. Put it on a plain ground.",
        "fastai 会丢掉透明信息，露出底下的颜色。请先垫上纯色背景。"),
    "animated": Problem("动图或多页图", KNOW,
        "fastai takes the first frame and no other.",
        "fastai 只取第一帧。"),
    "rotated": Problem("方向靠 EXIF 标记", KNOW,
        "Its pixels lie on their side; a mark (EXIF) tells viewers to turn them, which fastai"
        " ignores. Save it upright.",
        "像素本身是横躺或翻转的，看图软件会按 EXIF 标记转正，fastai 却不理会这个标记。"
        "请转正后另存。"),
    "tiny": Problem("太小", KNOW,
        f"Its shorter side has fewer than {SMALL} pixels; blown up to 224 it will be a blur.",
        f"短边不到 {SMALL} 像素，放大到 224 会很模糊。"),
    "huge": Problem("过大", KNOW,
        "Works, but opening it takes longer than learning from it. resize_images(path,"
        " dest=new_folder, max_size=500, recurse=True), which is fastai's, writes smaller copies.",
        "能用，但每次打开都比学习还慢。fastai 的"
        " resize_images(path, dest=new_folder, max_size=500, recurse=True) 会另存缩小的副本。"),
    "wrong extension": Problem("扩展名不符", KNOW,
        "Its name says one format, its content is another. fastai reads it all the same.",
        "扩展名和真实格式对不上。fastai 照样能读。"),
    "passed over": Problem("被跳过的文件", KNOW,
        "fastai picks pictures by extension and passes over this file."
        " If it is one, correct its extension or save it as JPEG.",
        "fastai 按扩展名挑图片，会跳过这个文件。如果它真是图片，请改正扩展名，或另存为 JPEG。"),
    "stray file": Problem("系统残留文件", KNOW,
        "Left by the system or by Jupyter. fastai passes over it; so may you.",
        "系统或 Jupyter 留下的。fastai 会跳过它，你也不必理会。"),
}
# fmt: on
