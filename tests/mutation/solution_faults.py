"""Faults of solution.py: training, looks, photos, checkpoint, answers."""

from tests.mutation.fault import Fault


def _fault(tests: str, lost: str, text: str, replacement: str) -> Fault:
    return Fault("solution.py", text, replacement, lost, tests)


STEP = "test_training.py::test_training_is_adamw_and_delivers_the_average_of_its_weights"
LOSS = "test_training.py::test_the_loss_is_that_of_the_smoothed_labels_of_the_photos_shown"
ORDER = (
    "test_training.py::test_each_epoch_shows_the_next_view_of_each_training_photo_in_another_order"
)
RATES = "test_training.py::test_the_learning_rate_rises_then_falls_to_its_share"
LEAK = "test_training.py::test_validation_photos_have_no_part_in_the_validation_run"
ANSWERS = "test_training.py::test_validation_answers_are_those_of_both_looks"
STARTS = "test_training.py::test_both_runs_start_from_the_same_weights_and_every_seed_differs"
FROZEN = "test_training.py::test_what_is_frozen_stays_bit_equal_and_the_rest_is_trained"
BIRD = (
    "test_training.py::"
    "test_training_looks_at_the_bird_that_the_head_sees_with_the_detail_of_the_file"
)
VIEWS = (
    "test_training.py::test_view_0_is_the_box_through_the_frozen_blocks "
    "test_training.py::test_other_views_are_random_and_do_not_depend_on_when_they_are_computed "
    "test_training.py::test_a_view_is_computed_once "
    "test_training.py::test_more_photos_than_fit_get_fewer_views"
)
FAST = (
    "test_training.py::test_fast_train_looks_at_two_batches_of_photos_from_all_of_them "
    "test_training.py::test_random_state_threads_and_gradient_mode_are_left_as_they_were"
)
LOOKS = "test_looks.py"
PHOTOS = "test_classify.py test_photos.py"

TRAINING = [
    _fault(
        LEAK,
        "the stored accuracy, measured on photos that were trained on",
        '_fit("validation run", network, cache, labels, train, photos)',
        '_fit("validation run", network, cache, labels, np.arange(len(labels)), photos)',
    ),
    _fault(
        LEAK,
        "a model trained on all photos",
        '_fit("final run", network, cache, labels, np.arange(len(names)))',
        '_fit("final run", network, cache, labels,'
        " split_photos(labels.numpy(), 0.2, settings.seed)[0])",
    ),
    _fault(
        STARTS,
        "a final run that starts where the validation run does",
        "    network = copy.deepcopy(network)\n",
        "",
    ),
    _fault(
        ANSWERS,
        "a validation of what classify answers: of the first look instead of both",
        "torch.stack([answer.logits for answer in seen])",
        "torch.stack([answer.first for answer in seen])",
    ),
    _fault(
        ORDER,
        "training on the chosen photos alone",
        ".permutation(train)",
        ".permutation(len(labels))",
    ),
    _fault(RATES, "rates that follow the plan", "        self.scheduler.step()\n", ""),
    _fault(
        STEP,
        "steps along the gradient of their own batch",
        "        self.optimiser.zero_grad()\n",
        "",
    ),
    _fault(
        STEP,
        "the average of the weights: the last ones are delivered",
        "    run.upper.load_state_dict(run.average.module.state_dict())\n",
        "",
    ),
    _fault(STEP, "the average's decay", "decay = settings.average_decay", "decay = 0.998"),
    _fault(
        STEP,
        "weight decay",
        "decay = settings.weight_decay if decays else 0.0",
        "decay = 0.0",
    ),
    _fault(
        STEP,
        "batch norms and biases that are not decayed",
        "decay = settings.weight_decay if decays else 0.0",
        "decay = settings.weight_decay",
    ),
    _fault(
        STEP,
        "a slow backbone",
        "{upper.blocks: settings.backbone_learning_rate",
        "{upper.blocks: settings.head_learning_rate",
    ),
    _fault(
        STEP,
        "a validation table of the averaged weights",
        "logits, truth = _logits(run.average.module,",
        "logits, truth = _logits(run.upper,",
    ),
    _fault(
        RATES,
        "the final learning rate that was set",
        "final_div_factor=1 / (25 * settings.final_rate)",
        "final_div_factor=1 / 25",
    ),
    _fault(
        RATES,
        "the warm-up that was set",
        "pct_start=max(settings.warmup, ",
        "pct_start=max(0.5, ",
    ),
    _fault(
        f"{LOSS} {STEP}",
        "label smoothing",
        "CrossEntropyLoss(label_smoothing=settings.label_smoothing)",
        "CrossEntropyLoss()",
    ),
    _fault(
        LOSS,
        "labels that stay with their photos",
        "run.step(view[photos], labels[photos])",
        "run.step(view[photos], labels[np.sort(photos)])",
    ),
    _fault(
        "test_training.py::test_dropout_is_at_work_in_training_alone",
        "dropout",
        "return self.head(self.dropout(x))\n\n\ndef _optimiser",
        "return self.head(x)\n\n\ndef _optimiser",
    ),
    _fault(FROZEN, "the dropout that was set", "settings.dropout)", "0.0)"),
    _fault(
        ORDER,
        "augmented views",
        "view = cache.view(1 + number % cache.count)",
        "view = cache.view(0)",
    ),
    _fault(
        ORDER,
        "another view in each epoch",
        "view = cache.view(1 + number % cache.count)",
        "view = cache.view(1)",
    ),
    _fault(
        ORDER,
        "batches made anew in each epoch",
        "default_rng([settings.seed, number])",
        "default_rng([settings.seed, 0])",
    ),
    _fault(
        FROZEN,
        "as many trained blocks as were set",
        "network.features[: -settings.unfrozen_blocks].requires_grad_(False)",
        "network.features[: 1 - settings.unfrozen_blocks].requires_grad_(False)",
    ),
    _fault(
        STEP,
        "ImageNet's batch statistics",
        "scale = gain * torch.rsqrt(variance + layer",
        "scale = gain * torch.rsqrt(1.2 * variance + layer",
    ),
    _fault(
        FAST,
        "a fast_train of one epoch",
        "settings = replace(settings, epochs=1, views=1)",
        "settings = replace(settings, views=1)",
    ),
    _fault(
        FAST,
        "a fast_train that sees all species",
        "            random.Random(settings.seed).shuffle(names)\n",
        "",
    ),
    _fault(FAST, "a fast fast_train", "FAST_TRAIN_PHOTOS = 64", "FAST_TRAIN_PHOTOS = 640"),
    _fault(
        "test_training.py::test_few_photos_never_crash test_checkpoint.py",
        "the likeliest answer for photos that cannot be decoded",
        "most_common(1)[0][0]",
        "most_common()[-1][0]",
    ),
    _fault(
        "test_training.py::test_split_keeps_the_proportions_and_follows_the_seed",
        "validation photos of every species",
        "stratify=of, ",
        "",
    ),
    _fault(
        "test_training.py::test_split_keeps_the_proportions_and_follows_the_seed",
        "another split with another seed",
        "random_state=seed",
        "random_state=0",
    ),
    _fault(
        "test_training.py::test_boxes_come_from_the_head_of_the_pretrained_network",
        "boxes where the pretrained network saw a bird",
        "looks.find(pixels)[2] if looks else",
        "looks.find(pixels)[2] if not looks else",
    ),
]

VIEWS_OF_TRAINING = [
    _fault(
        VIEWS,
        "views that are computed once",
        "        if number not in self.views:\n",
        "        if True:\n",
    ),
    _fault(
        VIEWS,
        "random views",
        "drawn if number else (bird, *PLAIN)",
        "(bird, *PLAIN)",
    ),
    _fault(
        VIEWS,
        "views that differ from epoch to epoch",
        'f"seed {self.settings.seed}, view {number}, photo {photo}"',
        'f"seed {self.settings.seed}, photo {photo}"',
    ),
    _fault(
        VIEWS,
        "views that follow the seed",
        'f"seed {self.settings.seed}, view {number}, photo {photo}"',
        'f"view {number}, photo {photo}"',
    ),
    _fault(
        VIEWS,
        "the bound on memory",
        "max(1, min(self.settings.views, room))",
        "self.settings.views",
    ),
    _fault(BIRD, "the detail of large photos", "DETAIL = 4", "DETAIL = 1"),
    _fault(
        BIRD,
        "views of the bird",
        "(bird, *PLAIN), self.preprocessing",
        "((0, 0, pixels.shape[2], pixels.shape[1]), *PLAIN), self.preprocessing",
    ),
    _fault(
        LOOKS,
        "mirrored views",
        "square = square.flip(2) if mirrored else square",
        "square = square",
    ),
    _fault(LOOKS, "views of both directions", "generator.random() < 0.5", "generator.random() < 1"),
    _fault(
        LOOKS,
        "colours at random",
        "generator.uniform(1 - jitter, 1 + jitter)",
        "generator.uniform(1, 1 + jitter)",
    ),
    _fault(
        LOOKS,
        "crops as tight as was set",
        "settings.tightest_crop * max(right - left, bottom - top)",
        "max(right - left, bottom - top)",
    ),
    _fault(
        LOOKS,
        "crops up to the whole photo",
        "generator.uniform(math.log(smallest), math.log(largest))",
        "math.log(smallest)",
    ),
    _fault(
        LOOKS,
        "stretched crops",
        "settings.crop_stretch ** generator.uniform(-0.5, 0.5)",
        "1.0",
    ),
    _fault(
        LOOKS,
        "crops that hold the bird",
        "low, high = sorted((end - side, start))",
        "low, high = 0, length - side",
    ),
]

LOOKING = [
    _fault(
        LOOKS,
        "colours as ImageNet's weights expect them",
        "(0.485, 0.456, 0.406)",
        "(0.5, 0.5, 0.5)",
    ),
    _fault(
        LOOKS,
        "contrast as ImageNet's weights expect it",
        "(0.229, 0.224, 0.225)",
        "(0.25, 0.25, 0.25)",
    ),
    _fault(
        LOOKS,
        "a second look at the right place: the mirror image's map is not turned back",
        "return (maps[0] + maps[1].flip(2)) / 2",
        "return (maps[0] + maps[1]) / 2",
    ),
    _fault(
        LOOKS,
        "a map of the likeliest species",
        "best.values @ head[0][best.indices], maps)",
        "best.values @ head[0][: len(best.values)], maps)",
    ),
    _fault(LOOKS, "the bird's own blob", "blob = (grown > 0) & above", "blob = above"),
    _fault(LOOKS, "the box's margin", "* (1 + 2 * preprocessing[", "* (1 + 0 * preprocessing["),
    _fault(
        LOOKS,
        "the box's threshold",
        'blob = _blob(heat, preprocessing["box_threshold"])',
        "blob = _blob(heat, 0.6)",
    ),
    _fault(
        LOOKS,
        "boxes on the photo",
        "return min(max(round(middle - side / 2), 0), length - side)",
        "return round(middle - side / 2)",
    ),
    _fault(
        LOOKS,
        "a whole look at tiny photos",
        "if min(height, width) < TINY or not heat.max() > 1e-6:",
        "if not heat.max() > 1e-6:",
    ),
    _fault(
        LOOKS,
        "a whole look where the map is flat",
        "if min(height, width) < TINY or not heat.max() > 1e-6:",
        "if min(height, width) < TINY:",
    ),
    _fault(
        LOOKS,
        "the first look's part in the answer",
        "return Seen(torch.lerp(second, first, share), first",
        "return Seen(second, first",
    ),
    _fault(
        LOOKS,
        "portrait photos without distortion",
        "return (short, long) if width > height else (long, short)",
        "return (short, long)",
    ),
    _fault(
        "test_classify.py",
        "a second look: the whole photo twice",
        "second = self._logits(self._maps(pixels, box, self.square))",
        "second = self._logits(self._maps(pixels, (0, 0, *pixels.shape[:0:-1]), self.square))",
    ),
    _fault(
        "test_one_photo.py::test_side_by_side_keeps_the_order_and_the_callers_threads",
        "photos side by side, each on one core",
        'ThreadPoolExecutor(threads, "photos", torch.set_num_threads, (1,))',
        'ThreadPoolExecutor(threads, "photos", torch.set_num_threads, (2,))',
    ),
]

FILES = [
    _fault(PHOTOS, "deep photos that are not clipped", "        grey *= 255 / white\n", ""),
    _fault(
        PHOTOS,
        "the orientation of photos in other modes",
        "        photo = ImageOps.exif_transpose(photo)\n    return _to_rgb(photo)",
        "        photo = ImageOps.exif_transpose(_to_rgb(photo))\n    return photo.convert('RGB')",
    ),
    _fault(PHOTOS, "photos on white", '"RGBA", photo.size, "white"', '"RGBA", photo.size, "black"'),
    _fault(
        PHOTOS,
        "large JPEGs at the size that is needed",
        'photo.draft("RGB", (side, side))',
        'photo.draft("RGB", (side // 2, side // 2))',
    ),
    _fault(PHOTOS, "the bound on memory", "if width * height > MAX_PIXELS:", "if False:"),
    _fault(
        PHOTOS,
        "what is there of truncated photos",
        "ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, None",
        "ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None",
    ),
    _fault(
        "test_checkpoint.py",
        "a clear word about models of other versions",
        '(checkpoint.get("format"), checkpoint.get("format_version")) != (FORMAT, FORMAT_VERSION)',
        'checkpoint.get("format") != FORMAT',
    ),
    _fault(
        "test_checkpoint.py",
        "a known answer that is compared",
        "np.abs(np.array(_known_answer(classifier)) - stored)",
        "(np.array(_known_answer(classifier)) - stored)",
    ),
    _fault(
        "test_checkpoint.py", "safety from foreign files", "weights_only=True", "weights_only=False"
    ),
    _fault(
        "test_classify.py",
        "the fallback for photos that cannot be decoded",
        "answers[path.name] = classifier.fallback_class",
        "answers[path.name] = classifier.class_ids[0]",
    ),
    _fault(
        "test_classify.py",
        "class ids: columns are answered",
        "classifier.class_ids[int(seen.logits.argmax())]",
        "int(seen.logits.argmax())",
    ),
    _fault(
        "test_one_photo.py",
        "calibrated probabilities",
        "functional.softmax(logits / self.temperature, -1)",
        "functional.softmax(logits, -1)",
    ),
    _fault(
        "test_one_photo.py",
        "a remark where the network is unsure",
        ".max() < classifier.unsure_below",
        ".max() > classifier.unsure_below",
    ),
    _fault(
        "test_one_photo.py",
        "the threshold of that remark",
        "best.quantile(0.05)",
        "best.quantile(0.5)",
    ),
]

FAULTS = [*TRAINING, *VIEWS_OF_TRAINING, *LOOKING, *FILES]
