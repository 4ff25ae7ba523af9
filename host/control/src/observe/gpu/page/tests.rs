use proptest::prelude::*;

use super::*;

fn read(page: &str) -> Vec<Gpu> {
    let mut scanner = PageScanner::new(vec!["10.0.0.1".into()]);
    scanner.feed(page.as_bytes());
    let mut gpus = scanner.finish();
    gpus.sort_by(|a, b| a.name.gpu.cmp(&b.name.gpu));
    gpus
}

/// As a DCGM exporter with Kubernetes' mapping prints it: one GPU in use, one idle.
const PAGE: &str = r#"# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="vllm",namespace="ml",pod="llama-0"} 1980
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="vllm",namespace="ml",pod="llama-0"} 95
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="",namespace="",pod=""} 0
# HELP DCGM_FI_DEV_FB_FREE Framebuffer memory free (in MiB).
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="vllm",namespace="ml",pod="llama-0"} 20480
DCGM_FI_DEV_FB_FREE{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="",namespace="",pod=""} 81920
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="vllm",namespace="ml",pod="llama-0"} 61440
DCGM_FI_DEV_FB_USED{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="",namespace="",pod=""} 9223372036854775794
"#;

#[test]
fn an_exporters_page_is_read() {
    let gpus = read(PAGE);
    let [busy, idle] = &gpus[..] else { panic!("two GPUs: {gpus:?}") };
    assert_eq!((&*busy.name.namespace, &*busy.name.pod, &*busy.name.node), ("ml", "llama-0", "node-1"));
    assert_eq!(busy.util_percent, Some(95.0));
    assert_eq!(busy.used_bytes, Some(f64::from(61_440 << 10) * 1024.0));
    assert_eq!(busy.free_bytes, Some(f64::from(20_480 << 10) * 1024.0));
    assert_eq!((&*idle.name.pod, idle.util_percent, idle.used_bytes), ("", Some(0.0), None));
    assert_eq!(idle.machine, [Box::from("10.0.0.1"), Box::from("node-1")]);
}

#[test]
fn odd_lines_are_read_as_far_as_they_are_sound() {
    let util = |line: &str| read(line).first().and_then(|gpu| gpu.util_percent);
    let table = [
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"} 7"#, Some(7.0)),
        (r#" DCGM_FI_DEV_GPU_UTIL { gpu="0" } 7"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{ gpu = "0" , } 7 1700000000000"#, Some(7.0)),
        (r#"DCGM_FI_DEV_GPU_UTIL{modelName="a\"},b\\",gpu="0"} 7"#, Some(7.0)),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0",pod="a} 7"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu=0} 7"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{} 7"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL 7"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"} NaN"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"} +Inf"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"} -1"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"} 9223372036854775792"#, None),
        (r#"DCGM_FI_DEV_GPU_UTIL{gpu="0"}"#, None),
        (r#"DCGM_FI_DEV_GPU_UTILS{gpu="0"} 7"#, None),
    ];
    for (line, expected) in table {
        assert_eq!(util(line), expected, "{line}");
    }
    assert_eq!(&*read(r#"DCGM_FI_DEV_GPU_UTIL{gpu="a\\b\"c"} 1"#)[0].name.gpu, r#"a\b"c"#);
}

proptest! {
    #[test]
    fn pieces_of_any_size_and_any_bytes_never_panic(cuts in prop::collection::vec(1_usize..400, 1..40), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = PAGE.as_bytes().to_vec();
        let whole = read(PAGE);
        let mut scanner = PageScanner::new(vec!["10.0.0.1".into()]);
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            scanner.feed(piece);
            rest = behind;
        }
        scanner.feed(rest);
        let mut gpus = scanner.finish();
        gpus.sort_by(|a, b| a.name.gpu.cmp(&b.name.gpu));
        prop_assert_eq!(gpus, whole);
        let at = noise.len() * 13 % bytes.len();
        bytes.splice(at..at, noise);
        let mut scanner = PageScanner::new(Vec::new());
        scanner.feed(&bytes);
        scanner.finish();
    }
}
