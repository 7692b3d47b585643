"""``compress prune``: vocabulary, layers, heads and neurons go one after the other, with training in between.

Every stage leaves a folder below the run's, and a stage whose folder is there is not done again:

    vocabulary/                 the checkpoint with fewer pieces
    layers/, layers-training/   with fewer layers, and the training run after it
    search/                     slimming: the run that trains the coefficients
    round-1/, round-1-training/ with fewer heads and neurons, and the training run after it; round-2/ …
    final/                      the result, with ``pruning.json``: what went, scores, distances of masks, counts

A training run is resumed step by step; a stage that only measures and removes begins again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from transformers import T5ForConditionalGeneration

from mengzi_mt.compression.distil_objective import Distillation
from mengzi_mt.compression.importance import FirstOrder, layer_scores, unit_scores
from mengzi_mt.compression.pruning_choice import Kept, kept_units, ratio_for
from mengzi_mt.compression.pruning_recipe import PruneRecipe
from mengzi_mt.compression.pruning_vocabulary import SENTENCEPIECE, agreement, count_pieces, kept_pieces, trim_model, trim_tokenizer
from mengzi_mt.compression.slimming import MaskWatch, Slimming, coefficients, distance_picture, fold, mask_of, read_looks, slim
from mengzi_mt.config import Recipe, dump_recipe
from mengzi_mt.data.stream import OnTheFly
from mengzi_mt.data.token_shards import check_tokenizer, open_corpus
from mengzi_mt.data.tokens import Encoder, Limits
from mengzi_mt.errors import InputError
from mengzi_mt.models.pruned import Kind, is_plain, keep_layers, layers_of, remove_units, units_of
from mengzi_mt.models.t5 import load_model, parameter_count
from mengzi_mt.models.tokenizer import load_tokenizer
from mengzi_mt.resources import resolve
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.checkpoint import MANIFEST, read_manifest, save_checkpoint
from mengzi_mt.training.devices import Devices
from mengzi_mt.training.interrupts import Interrupts
from mengzi_mt.training.loader import Loader, StepMaker
from mengzi_mt.training.loop import train
from mengzi_mt.training.losses import LossModule, accumulate
from mengzi_mt.training.run import Run
from mengzi_mt.training.saving import FINAL, differences
from mengzi_mt.training.setup import make_mixture, set_up, warn

REPORT = "pruning.json"
FORMAT = "mengzi-mt/pruning/1"
COMPARED = 2_000
"""Texts of the corpus, and examples of the mixture, on which two tokenizers are compared."""


def prune(recipe: PruneRecipe, source: DataSource) -> Path:
    """Prune a checkpoint as a recipe says; returns the folder of the result.

    Raises:
        InputError: the run folder is another recipe's, or what is to go cannot.
        RunError: as in training.
    """
    if Devices(recipe.training).count > 1:
        raise InputError("One process prunes", where="the launcher", fix="start it without torchrun")
    _claim(recipe)
    return _Pruning(recipe, source).result()


def _claim(recipe: PruneRecipe) -> None:
    """See that the run folder is new or of the same recipe."""
    file = recipe.run_dir / "recipe.json"
    now = recipe.model_dump(mode="json")
    if file.is_file():
        different = differences(json.loads(file.read_text(encoding="utf-8")), now)
        if different:
            raise InputError(
                "The run folder holds a pruning by another recipe: " + "; ".join(different), where=str(recipe.run_dir),
                fix="restore these values, or set another `output`",
            )  # fmt: skip
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(now, ensure_ascii=False), encoding="utf-8")
    (recipe.run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")


class _Pruning:
    """One run. ``facts`` are what each stage has to tell, in order."""

    def __init__(self, recipe: PruneRecipe, source: DataSource) -> None:
        self.recipe, self.source, self.folder = recipe, source, recipe.run_dir
        self.start = Path(resolve(str(recipe.model.init)))
        self.facts: list[dict[str, Any]] = []

    def result(self) -> Path:
        """Go through the stages."""
        recipe, final = self.recipe, self.folder / FINAL
        if _done(final):
            return final
        place = self._vocabulary() if recipe.vocabulary else self.start
        self.teacher = place
        if recipe.layers:
            place = self._train("layers-training", self._layers(place), 0)
        if recipe.units:
            place = self._units(place)
        return self._finish(place, final)

    @cached_property
    def data(self) -> Run:
        """Rows and templates, read when a stage first needs them."""
        return set_up(self.recipe.stage("data", self.start, 0), self.source)

    def _run(self, stage: Recipe) -> Run:
        """A stage's run, on the checkpoint that it starts from and with its tokenizer."""
        place = str(stage.model.init)
        model, tokenizer = load_model(place, dropout=stage.model.dropout), load_tokenizer(place)
        mixture = make_mixture(self.data.mixture.pools, stage)
        return replace(self.data, recipe=stage, model=model, tokenizer=tokenizer, mixture=mixture, stream=None)

    def _write(self, name: str, model: T5ForConditionalGeneration, place: Path, facts: dict[str, Any], tokenizer: Path) -> Path:
        """Save a stage's checkpoint, which holds what it has to tell."""
        manifest = {**read_manifest(place), "parameters": parameter_count(model), "pruning": facts}
        save_checkpoint(self.folder / name, model, load_tokenizer(tokenizer), manifest, also=_copies(tokenizer))
        self.facts.append(facts)
        for sentence in facts.get("warnings", []):
            warn(sentence)
        print(f"{name}: {facts['parameters'][0]:,} parameters, now {facts['parameters'][1]:,}", flush=True)
        return self.folder / name

    def _known(self, name: str) -> Path | None:
        """A stage that was done before."""
        folder = self.folder / name
        if not _done(folder):
            return None
        self.facts.append(read_manifest(folder)["pruning"])
        return folder

    def _train(self, name: str, place: Path, seed: int) -> Path:
        """Train a checkpoint on, with the teacher if there is one."""
        final = self.folder / name / FINAL
        if _done(final):
            return final
        run, teacher = self._run(self.recipe.stage(name, place, seed)), self.recipe.teacher
        if teacher:
            whole, pieces = load_model(self.teacher), len(run.tokenizer)
            run = replace(run, objective=Distillation(whole, run.model, teacher.losses, teacher.precision, pieces))
        return train(run)

    def _vocabulary(self) -> Path:
        """Count pieces, and keep those that are used."""
        settings, name = self.recipe.vocabulary, "vocabulary"
        assert settings is not None
        found = self._known(name)
        if found:
            return found
        model, tokenizer = load_model(self.start), load_tokenizer(self.start)
        corpus = open_corpus(Path(settings.corpus)) if settings.corpus else None
        if corpus:
            check_tokenizer(corpus, tokenizer)
        limits, mixture = Limits(self.recipe.lengths.max_input, self.recipe.lengths.max_target), self.data.mixture
        counts = count_pieces(len(tokenizer), corpus, OnTheFly(mixture, Encoder(tokenizer), limits).examples(0, settings.examples))
        kept = kept_pieces(tokenizer, counts, settings)
        beside = self.folder / "tokenizer"
        trimmed = trim_tokenizer(self.start, kept, beside)
        before = parameter_count(model)
        trim_model(model, kept)
        held_out = [example.inputs for examples in self.data.validation.values() for example in examples]
        texts = {"validation examples": held_out}
        if corpus:
            step = max(1, corpus.documents // COMPARED)
            texts["corpus"] = [str(tokenizer.decode(corpus.document(one).tolist())) for one in range(0, corpus.documents, step)]
        facts = {
            "stage": name,
            "pieces": [len(tokenizer), len(kept)],
            "parameters": [before, parameter_count(model)],
            "tokens_counted": int(counts.sum()),
            "tokens_of_kept_pieces": int(counts[kept].sum()),
            "agreement": {name: vars(agreement(tokenizer, trimmed, some)) for name, some in texts.items() if some},
        }
        return self._write(name, model, self.start, facts, beside)

    def _layers(self, place: Path) -> Path:
        """Drop whole layers."""
        settings, name = self.recipe.layers, "layers"
        assert settings is not None
        found = self._known(name)
        if found:
            return found
        wanted = {stack: kept for stack, kept in (("encoder", settings.encoder), ("decoder", settings.decoder)) if kept is not None}
        scores: dict[str, list[float]] = {}
        model = load_model(place)
        if any(isinstance(kept, int) for kept in wanted.values()):
            run = self._run(self.recipe.stage(name, place, 0))
            model, scores = run.model, layer_scores(run.model, first_order(run, self.recipe.score_steps))
        kept = {stack: _most_important(stack, which, scores.get(stack, [])) for stack, which in wanted.items()}
        before, layers = parameter_count(model), {stack: len(paths) for stack, paths in layers_of(model).items()}
        keep_layers(model, kept)
        facts = {
            "stage": name,
            "layers": layers,
            "kept": kept,
            "scores": scores,
            "parameters": [before, parameter_count(model)],
        }
        return self._write(name, model, place, facts, place)

    def _units(self, place: Path) -> Path:
        """Remove heads and neurons in rounds, and train after each."""
        settings = self.recipe.units
        assert settings is not None
        model = load_model(place)
        whole = {units.name: units.count for units in units_of(model)}
        shares = settings.shares
        if settings.parameters is not None:
            ratio = ratio_for(model, settings.parameters, settings.selection)
            shares = {"heads": ratio, "neurons": ratio}
        for number in range(1, settings.rounds + 1):
            ratios = {kind: share * number / settings.rounds for kind, share in shares.items()}
            name = f"round-{number}"
            smaller = self._known(name) or (
                self._slim(name, place, ratios)
                if settings.method == "slimming"
                else self._remove_unimportant(name, place, ratios, whole, number)
            )
            place = self._train(f"{name}-training", smaller, number)
        return place

    def _remove_unimportant(
        self, name: str, place: Path, ratios: Mapping[Kind, float], whole: Mapping[str, int], number: int
    ) -> Path:
        settings = self.recipe.units
        assert settings is not None
        run = self._run(self.recipe.stage(name, place, number))
        scores = unit_scores(run.model, first_order(run, self.recipe.score_steps))
        kept: Kept = {}
        warnings: list[str] = []
        for kind, ratio in ratios.items():
            units = [one for one in units_of(run.model) if one.kind == kind]
            chosen, said = kept_units(units, scores, whole, ratio, settings.selection)
            kept |= chosen
            warnings += said
        told = {key: [float(f"{value:.4g}") for value in found.tolist()] for key, found in scores.items()}
        return self._removed(name, run.model, place, kept, {"ratios": dict(ratios), "scores": told, "warnings": warnings})

    def _slim(self, name: str, place: Path, ratios: Mapping[Kind, float]) -> Path:
        """Search an Early-Bird ticket, and draw it."""
        settings, slimming = self.recipe.units, self.recipe.slimming
        assert settings is not None
        stage = self.recipe.stage("search", place, 0, steps=slimming.steps, validate_every=slimming.look_every)
        stopping = {"score": "scores.mask_distance", "mode": "min", "goal": slimming.threshold}
        stage = Recipe.model_validate({**stage.model_dump(mode="json"), "stopping": stopping})
        masks = stage.run_dir / "masks.jsonl"
        watch = MaskWatch(masks, ratios, settings.selection, slimming.window)
        run = self._run(stage)
        slim(run.model)
        train(replace(run, validation={}, objective=Slimming(slimming.penalty, stage.training.attention)), validate=watch)
        looks = read_looks(masks)
        (self.folder / "masks.svg").write_text(distance_picture(looks, slimming.threshold), encoding="utf-8")
        kept, warnings = mask_of(run.model, ratios, settings.selection)
        scores = {key: [round(value, 4) for value in found.tolist()] for key, found in coefficients(run.model).items()}
        distances = [[look["step"], look["distance"]] for look in looks]
        fold(run.model)
        facts = {"ratios": dict(ratios), "coefficients": scores, "distances": distances, "warnings": warnings}
        return self._removed(name, run.model, place, kept, facts)

    def _removed(self, name: str, model: T5ForConditionalGeneration, place: Path, kept: Kept, facts: dict[str, Any]) -> Path:
        """Take the other units out, and save what is left."""
        nn.Module.to(model, "cpu")
        before, units = parameter_count(model), {one.name: one.count for one in units_of(model)}
        remove_units(model, kept)
        facts = {
            "stage": name,
            "units": {one: [units[one], len(chosen)] for one, chosen in kept.items()},
            "kept": kept,
            "parameters": [before, parameter_count(model)],
            **facts,
        }
        return self._write(name, model, place, facts, place)

    def _finish(self, place: Path, final: Path) -> Path:
        """The result: the last stage's checkpoint, and the report of all."""
        model, first = load_model(place), load_model(self.start)
        report = {
            "format": FORMAT,
            "source": str(self.recipe.model.init),
            "parameters": {"before": _parameters(first), "after": _parameters(model)},
            "plain": is_plain(model),
            "stages": self.facts,
        }
        written = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        picture = self.folder / "masks.svg"

        def also(beside: Path) -> None:
            (beside / REPORT).write_text(written, encoding="utf-8")
            if picture.is_file():
                shutil.copy(picture, beside)
            _copies(self.teacher)(beside)

        manifest = {key: value for key, value in read_manifest(place).items() if key != "pruning"}
        save_checkpoint(final, model, load_tokenizer(place), {**manifest, "parameters": parameter_count(model)}, also=also)
        return final


def first_order(run: Run, steps: int) -> dict[str, Any]:
    """Importance of every weight of the layers over the first steps of a run's mixture, without dropout."""
    recipe = run.recipe
    devices = Devices(recipe.training)
    nn.Module.to(run.model, devices.device).eval()
    module = LossModule(run.model, recipe.training)
    found = FirstOrder(run.model)
    start = int(run.model.config.decoder_start_token_id or 0)
    maker = StepMaker(recipe, run.mixture, run.stream, Encoder(run.tokenizer), start)
    with Loader(maker, 0, steps, recipe.training.workers) as loader, Interrupts() as interrupts:
        for batch in loader:
            accumulate(module, batch, devices)
            found.add()
            run.model.zero_grad(set_to_none=True)
            if interrupts.asked is not None:
                interrupts.stop()
    return found.importance()


def _most_important(stack: str, wanted: int | tuple[int, ...], scores: list[float]) -> list[int]:
    if not isinstance(wanted, int):
        return sorted(set(wanted))
    if wanted > len(scores):
        raise InputError(
            f"There are only {len(scores)} layers", where=f"layers.{stack}: {wanted}", fix="give the number of layers that stay"
        )
    return sorted(sorted(range(len(scores)), key=lambda layer: -scores[layer])[:wanted])


def _parameters(model: Any) -> dict[str, int]:
    """Of the whole model, and of its parts."""
    parts = {"embedding": model.shared, "encoder": model.encoder.block, "decoder": model.decoder.block}
    return {"all": parameter_count(model)} | {name: parameter_count(part) for name, part in parts.items()}


def _copies(place: Path) -> Any:
    """Copies the SentencePiece model, which no tokenizer of ``transformers`` saves, where there is one."""

    def copy(beside: Path) -> None:
        if (place / SENTENCEPIECE).is_file():
            shutil.copy(place / SENTENCEPIECE, beside)

    return copy


def _done(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()
