from mengzi_mt.data import prepare as preparation
from mengzi_mt.data.stream import OnTheFly, Prepared
from mengzi_mt.data.tokens import Encoder
from mengzi_mt.tasks.rows import DataSource
from mengzi_mt.training.preparation import example_stream, recipe_plans, set_up_data

SAMPLE = DataSource("sample")


def test_training_reads_what_is_prepared_and_makes_the_same_where_not(make_recipe, make_run, tmp_path):
    recipe = make_recipe(data={"prepared_dir": str(tmp_path / "prepared")})
    mixture, tokenizer = set_up_data(recipe, SAMPLE)
    run = make_run(data={"prepared_dir": str(tmp_path / "prepared")})
    assert [pool.rows for pool in run.mixture.pools] == [pool.rows for pool in mixture.pools]
    before = example_stream(recipe, SAMPLE, run.mixture, run.tokenizer)
    assert isinstance(before, OnTheFly)
    plans = recipe_plans(recipe, SAMPLE, mixture, tokenizer)
    preparation.prepare(plans, preparation.find_work(plans), Encoder(tokenizer))
    after = example_stream(recipe, SAMPLE, run.mixture, run.tokenizer)
    assert isinstance(after, Prepared)
    assert after.examples(0, 200) == before.examples(0, 200)
    longer = make_recipe(data={"prepared_dir": str(tmp_path / "prepared")}, lengths={"max_input": 95})
    assert isinstance(example_stream(longer, SAMPLE, run.mixture, run.tokenizer), OnTheFly)


def test_choices_that_vary_are_made_on_the_fly_whatever_is_prepared(make_recipe, make_run, tmp_path):
    settings = {"data": {"prepared_dir": str(tmp_path / "prepared")}}
    recipe = make_recipe(**settings)
    mixture, tokenizer = set_up_data(recipe, SAMPLE)
    plans = recipe_plans(recipe, SAMPLE, mixture, tokenizer)
    preparation.prepare(plans, preparation.find_work(plans), Encoder(tokenizer))
    varied = recipe.model_copy(update={"mixture": recipe.mixture.model_copy(update={"vary_choices": 1.0})})
    assert isinstance(example_stream(recipe, SAMPLE, mixture, tokenizer), Prepared)
    assert isinstance(example_stream(varied, SAMPLE, mixture, tokenizer), OnTheFly)
