"""Server-sent events, as the HTML standard has them."""

from taskrunner.client import Event
from taskrunner.client.events import Parser


def events(text: str) -> list[Event]:
    parser = Parser()
    return [event for line in text.split("\n") if (event := parser.feed(line)) is not None]


def test_an_event_ends_with_an_empty_line() -> None:
    assert events('event: task\nid: 7\ndata: {"n": 1}\n\ndata: half') == [Event(event="task", id="7", data={"n": 1})]


def test_data_of_several_lines_is_one_text() -> None:
    assert events("data: a\ndata:b\ndata\n\n")[0].data == "a\nb\n"


def test_comments_and_events_without_data_are_nothing() -> None:
    assert events(": still here\n\nevent: task\n\n") == []


def test_an_id_holds_until_the_next_one() -> None:
    assert [event.id for event in events("id: 1\ndata: 1\n\ndata: 2\n\nid: 3\ndata: 3\n\n")] == ["1", "1", "3"]


def test_the_service_says_when_to_come_back() -> None:
    parser = Parser()
    assert parser.feed("retry: 2500") is None
    assert parser.retry == 2.5
    parser.feed("retry: soon")
    assert parser.retry == 2.5
