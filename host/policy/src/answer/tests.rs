use super::*;
use crate::testing::pool;

const NAN: f32 = f32::NAN;

fn decision(choice: types::Choice) -> types::Decision {
    types::Decision { choice, headers: None }
}

fn with_headers(headers: &[(&str, &str)]) -> types::Decision {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    types::Decision { choice: types::Choice::Abstain, headers: Some(headers.collect()) }
}

fn checked(
    decision: types::Decision,
    excluded: &[u32],
    scores: Option<&[f32]>,
) -> Result<Answer, AnswerError> {
    check(decision, Question { pool: &pool(3, Vec::new()), excluded, scores })
}

#[test]
fn what_may_not_be_chosen_is_refused_in_every_kind_of_answer() {
    let excluded = [0];
    let scores = [0.5, NAN, 0.5];
    for (index, error) in
        [(0, AnswerError::Excluded(0)), (1, AnswerError::RuledOut(1)), (3, AnswerError::OutOfRange(3))]
    {
        let single = decision(types::Choice::Endpoint(index));
        assert_eq!(checked(single, &excluded, Some(&scores)).unwrap_err(), error);
        let order = decision(types::Choice::Ordered(vec![2, index]));
        assert_eq!(checked(order, &excluded, Some(&scores)).unwrap_err(), error);
    }
    assert!(checked(decision(types::Choice::Endpoint(2)), &excluded, Some(&scores)).is_ok());
}

#[test]
fn scores_keep_earlier_vetoes_and_must_leave_somebody() {
    let scored = |new: &[f32], before: Option<&[f32]>, excluded: &[u32]| match checked(
        decision(types::Choice::Scores(new.to_vec())),
        excluded,
        before,
    ) {
        Ok(Answer { choice: Choice::Scores(scores), .. }) => Ok(format!("{scores:?}")),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(scored(&[1.0, 0.0, 0.5], Some(&[0.1, NAN, 0.1]), &[]).unwrap(), "[1.0, NaN, 0.5]");
    assert_eq!(scored(&[1.0, NAN, NAN], Some(&[NAN, 0.1, 0.1]), &[]), Err(AnswerError::NoScore));
    assert_eq!(scored(&[1.0, NAN, NAN], None, &[0]), Err(AnswerError::NoScore));
    assert_eq!(scored(&[NAN, NAN, NAN], None, &[]), Err(AnswerError::NoScore));
    assert_eq!(scored(&[1.0, 1.0], None, &[]), Err(AnswerError::ScoresLength { given: 2, endpoints: 3 }));
    for wild in [1.000_1, -0.1, f32::INFINITY, f32::NEG_INFINITY] {
        let error = Err(AnswerError::Score { endpoint: 1, score: wild });
        assert_eq!(scored(&[1.0, wild, 0.0], None, &[]), error);
    }
}

#[test]
fn a_refusal_is_made_fit_for_the_client() {
    let reason = format!("line\r\none \u{7f}{}", "é".repeat(200));
    let refusal = types::Refusal { status: 503, reason, retry_after_ms: Some(1_500) };
    let Ok(Answer { choice: Choice::Refuse(refusal), .. }) =
        checked(decision(types::Choice::Refuse(refusal)), &[], None)
    else {
        panic!("503 is a refusal");
    };
    assert!(refusal.reason.starts_with("lineone é"), "{}", refusal.reason);
    assert!(refusal.reason.len() <= REASON_BYTES_MAX);
    assert_eq!(refusal.retry_after, Some(Duration::from_millis(1_500)));
    for status in [200, 403, 500, 502] {
        let refusal = types::Refusal { status, reason: String::new(), retry_after_ms: None };
        let error = checked(decision(types::Choice::Refuse(refusal)), &[], None).unwrap_err();
        assert_eq!(error, AnswerError::Status(status));
    }
}

#[test]
fn only_extension_headers_that_are_not_ours_may_be_added() {
    let ok = with_headers(&[("x-tier", "gold"), ("X-Cache-Hint", "warm")]);
    let names: Vec<String> =
        checked(ok, &[], None).unwrap().headers.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    assert_eq!(names, ["x-tier", "x-cache-hint"]);
    let forbidden = [
        "authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "x-wicketgate-endpoint",
        "X-Forwarded-For",
        "x-request-id",
        "x-bad name",
        "",
    ];
    for name in forbidden {
        let error = checked(with_headers(&[(name, "1")]), &[], None).unwrap_err();
        assert_eq!(error, AnswerError::HeaderName(name.to_owned()));
    }
    let error = checked(with_headers(&[("x-tier", "a\r\nhost: b")]), &[], None).unwrap_err();
    assert_eq!(error, AnswerError::HeaderValue("x-tier".to_owned()));
    let many = vec![("x-a", "1"); ANSWER_HEADERS_MAX + 1];
    assert_eq!(checked(with_headers(&many), &[], None).unwrap_err(), AnswerError::Headers);
}
