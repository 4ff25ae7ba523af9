"""The official `openai` client against a base URL: one case a run, so that each is a test of its own.

usage: openai_client.py BASE_URL MODEL CASE
Exits 0 when the case holds; an assertion's text says what did not.
"""

import sys

import openai

# llama.cpp's own field: letters only, and no end before forty of them. A random model would otherwise end when it likes,
# and the server holds bytes back that begin a character, so that a stream of eight tokens had any number of chunks.
LETTERS = {"grammar": "root ::= [a-z]{40}"}


def chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        max_tokens=8,
        messages=[{"role": "user", "content": "Hello there."}],
        extra_body=LETTERS,
    )
    assert answer.model == model, answer.model
    assert answer.usage.completion_tokens == 8, answer.usage
    assert answer.choices[0].finish_reason == "length", answer.choices[0]


def stream(client: openai.OpenAI, model: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            messages=[{"role": "user", "content": "Count for me, please."}],
            extra_body=LETTERS,
        )
    )
    letters = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(letters) == 8 and all(len(letter) == 1 for letter in letters), letters
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 8, chunks[-1]
    assert any(chunk.choices and chunk.choices[0].finish_reason == "length" for chunk in chunks)


def completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4, extra_body=LETTERS)
    assert answer.usage.completion_tokens == 4, answer.usage


def models(client: openai.OpenAI, model: str) -> None:
    listed = [entry.id for entry in client.models.list()]
    assert listed == [model], listed


def embeddings(client: openai.OpenAI, model: str) -> None:
    answer = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 8, answer


def bad_request(client: openai.OpenAI, model: str) -> None:
    try:
        client.chat.completions.create(model=model, messages=[], extra_body={"messages": 5})
    except openai.BadRequestError as error:
        assert error.status_code == 400, error
        assert "messages" in str(error), error
    else:
        raise AssertionError("an unreadable request was answered")


def unknown_model(client: openai.OpenAI, model: str) -> None:
    try:
        client.chat.completions.create(model="nobody-has-this", messages=[{"role": "user", "content": "x"}])
    except openai.NotFoundError as error:
        assert "nobody-has-this" in str(error), error
    else:
        raise AssertionError("an unknown model was answered")


def cancelled_stream(client: openai.OpenAI, model: str) -> None:
    """Leaves after the first chunk of a long answer; the test beside this looks at the engine."""
    answer = client.chat.completions.create(
        model=model,
        max_tokens=1900,
        stream=True,
        messages=[{"role": "user", "content": "Talk on."}],
        extra_body={"ignore_eos": True},  # or a random model may end by itself
    )
    next(iter(answer))
    answer.close()


CASES = [chat, stream, completions, models, embeddings, bad_request, unknown_model, cancelled_stream]


def main() -> None:
    base_url, model, case = sys.argv[1:4]
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=120)
    {function.__name__: function for function in CASES}[case](client, model)


if __name__ == "__main__":
    main()
