import pytest
from pydantic import ValidationError

from apps.market_data_service.routes import SubscribeBody
from tests.support.steps import steps_of


def fault(given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        SubscribeBody.model_validate(given)
    (error,) = caught.value.errors()
    return str(error["msg"])


def refuse(given: object) -> None:
    with pytest.raises(ValidationError):
        SubscribeBody.model_validate(given)


def test_a_few_faults_are_named_each():
    with pytest.raises(ValidationError) as caught:
        SubscribeBody.model_validate({"symbol": "AAPL", **dict.fromkeys(map(str, range(20)), 1)})
    assert len(caught.value.errors()) == 20


def test_many_unknown_fields_are_one_fault_that_counts_them():
    told = fault({"symbol": "AAPL", **{f"k{number:05}": 1 for number in range(6_000)}})
    assert told.startswith("'k00000', 'k00001', ")
    assert told.endswith("'k00019' and 5,980 more are not known here")


def test_the_names_of_unknown_fields_are_cut():
    assert len(fault({f"{'x' * 5_000}{number}": 1 for number in range(21)})) < 1_000


def test_many_symbols_that_are_no_text_are_one_fault_that_counts_them():
    assert fault({"symbols": [1] * 5_000}) == "5,000 of the symbols are not strings"


@pytest.mark.parametrize("given", [lambda n: {f"k{place}": 1 for place in range(n)}, lambda n: {"symbols": [1] * n}])
def test_the_work_grows_no_faster_than_the_body(given):
    assert steps_of(lambda: refuse(given(4_000))) <= 8 * steps_of(lambda: refuse(given(500))) + 1_000
