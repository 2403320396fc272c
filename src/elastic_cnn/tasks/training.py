"""Training and testing: one engine for every job.

The engine (Lightning Fabric and a loop of our own, `loop.py`) knows no architecture and no task. Why not Lightning's
Trainer: after a kill in mid-epoch it replays or skips samples; here a resumed run equals an uninterrupted one to the bit.

What a task module (`tasks/NAME.py`, listed in `tasks.TASKS`) provides:

1. `Options`: a frozen dataclass, the recipe's section `options:` (strict keys and types; `Options(**defaults)` must work).
   Raise `ValueError` in `__post_init__` for values that make no sense.

2. `build(recipe: Recipe, data: str, settings: Settings) -> Job`: opens the data and makes the network:
   - datasets are map-style (`Samples` in `data/sampler.py`): `len(d)`, `d[i] -> dict` with `"image"`: float tensor
     `(3, H, W)` and whatever the task needs (tensors or numbers; names free, `"index"` and `"unreadable"` are taken),
     `d.path(i) -> str` (for messages). Random augmentation simply uses the global random, numpy and torch generators: they
     are seeded from (seed, epoch, index) before each sample, so results do not depend on workers or on a resume.
     A broken file raises `UnreadableSample(path, reason)` (`data/sampler.py`): it is left out with one warning and
     counted, an error under `--strict`.
   - the network: `make_network(recipe, classes)` (below) creates it by name, initialises it, loads `recipe.weights` into
     what fits (head new; prints what did not load), makes it elastic where `recipe.elastic`, and returns the network and
     its `NetworkCard`.

3. `class SomeTask(Task)` (`tasks/task.py`; a LightningModule with `.network`), usually:
       training_step(batch, batch_idx) -> loss ()      batch: the samples' dict, collated, on the device
       validation_step(batch, batch_idx) -> None       updates metrics (torchmetrics in `self.metrics`, integer counts)
       validation_results() -> dict[str, float]        over all processes, resets; plain numbers or lists of numbers
       metric = "top1", maximise = True                which result decides what is `best`
       parameter_groups() -> list[ParameterGroup]      optional: learning-rate and weight-decay factors by part
       save_pictures(folder, epoch) -> list[Path]      optional: after each validation, on the first process
       headline(results) -> str                        optional: the line printed after each validation
   The loop calls `network.train()` / `.eval()`; override `train(mode)` to freeze batch norms. Nothing may depend on
   state outside `state_dict()`: global generators are reseeded from (seed, step) before each training step.

4. `build_test(network, card, data: str, split: str, options: TestOptions) -> (Task, Samples)`: for `elastic eval`.
   Refuse data whose classes differ from `card.classes`, naming them.

What the engine offers:

    train(recipe, data, out, settings=Settings(), task_module=None) -> Summary   everything: out/best.safetensors,
        last.safetensors, last.ckpt, recipe.yaml, train.csv, val.csv, summary.json, tensorboard/, pictures/
    evaluate(checkpoint, data, split="val", ...) -> dict                        the task's results, images, images_per_s
    load_recipe(name_or_path, ["epochs=2", "optimizer.lr=0.01", "options.mixup=0"]) -> Recipe   (recipe.py)
    make_network(recipe, classes) -> (network, card)
    make_input_spec(recipe) -> InputSpec

Recipe keys (recipe.py has them all): task, network, network_kwargs, elastic, init, weights, image_size, batch_size (images an
optimizer step, over all devices), accumulate, epochs, optimizer {name lr momentum weight_decay decay_norm_and_bias ...},
schedule {name: constant|step|cosine|poly, ...}, ema, clip_grad, precision, channels_last, compile, seed, options {...}.
"""
