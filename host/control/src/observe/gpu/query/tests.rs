use super::*;

fn series(name: &str, labels: &str, time: f64, value: &str) -> String {
    format!(r#"{{"metric":{{"__name__":"{name}",{labels}}},"value":[{time},"{value}"]}}"#)
}

fn answer(series: &[String]) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, series.join(","))
}

const A: &str = r#""gpu":"0","Hostname":"n1","exported_namespace":"ml","exported_pod":"a","instance":"10.0.0.1:9400","namespace":"monitoring","pod":"dcgm-x""#;
const B: &str = r#""gpu":"0","Hostname":"n2","exported_namespace":"ml","exported_pod":"b","instance":"10.0.0.2:9400","namespace":"monitoring","pod":"dcgm-y""#;

#[test]
fn values_and_ages_come_together_by_gpu() {
    let values = answer(&[
        series("DCGM_FI_DEV_GPU_UTIL", A, 1_000.5, "95"),
        series("DCGM_FI_DEV_FB_USED", A, 1_000.5, "300"),
        series("DCGM_FI_DEV_FB_FREE", A, 1_000.5, "100"),
        series("DCGM_FI_DEV_GPU_UTIL", B, 1_000.5, "NaN"),
        series("DCGM_FI_DEV_FB_FREE", B, 1_000.5, "100"),
        series("up", B, 1_000.5, "1"),
    ]);
    let unnamed =
        |labels: &str, time: &str| format!(r#"{{"metric":{{{labels}}},"value":[1000.5,"{time}"]}}"#);
    let times = answer(&[unnamed(A, "980.25"), unnamed(B, "NaN")]);
    let mut gpus = read(values.as_bytes(), Some(times.as_bytes())).expect("an answer");
    gpus.sort_by(|a, b| a.name.pod.cmp(&b.name.pod));
    let [a, b] = &gpus[..] else { panic!("two GPUs: {gpus:?}") };
    assert_eq!((&*a.name.namespace, &*a.name.pod, a.age_ms), ("ml", "a", 20_250));
    assert_eq!((a.util_percent, a.used_bytes), (Some(95.0), Some(300.0 * 1_048_576.0)));
    assert_eq!((&*b.name.pod, b.util_percent, b.used_bytes, b.age_ms), ("b", None, None, 0));
    assert_eq!(a.machine, [Box::from("n1"), Box::from("10.0.0.1")]);
    let alone = read(values.as_bytes(), Some(b"404 page not found")).expect("an answer without ages");
    assert!(alone.iter().all(|gpu| gpu.age_ms == 0));
}

#[test]
fn what_is_no_vector_is_no_answer() {
    for text in [
        "",
        "404 page not found",
        "{}",
        r#"{"status":"error","errorType":"bad_data","error":"x"}"#,
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":{}}}"#,
    ] {
        assert_eq!(read(text.as_bytes(), None), None, "{text}");
    }
    assert_eq!(read(answer(&[]).as_bytes(), None), Some(Vec::new()), "no GPU is an answer");
}

#[test]
fn a_clock_that_runs_behind_makes_nothing_younger_than_now() {
    let values = answer(&[series("DCGM_FI_DEV_GPU_UTIL", A, 100.0, "1")]);
    let times = answer(&[format!(r#"{{"metric":{{{A}}},"value":[100,"160"]}}"#)]);
    let gpus = read(values.as_bytes(), Some(times.as_bytes())).expect("an answer");
    assert_eq!(gpus[0].age_ms, 0);
}
