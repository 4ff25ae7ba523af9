//! The custom resource definitions on a real API server: what is taken, what is refused and with which words, what people
//! see with `kubectl get`.

use cluster::place::{GROUP, OURS, Place, documents, resource};
use cluster::plane;
use serde_json::json;

/// A01: the folder `crds/` applies as the documentation says, and every definition is established.
#[tokio::test]
async fn the_definitions_apply_and_are_established() {
    let place = Place::new("a01").await;
    let folder = plane::definitions();
    let path = folder.to_str().expect("a path");
    let said = place.kubectl(&["apply", "--server-side", "-f", path], "").await.ok();
    assert_eq!(said.out.lines().count(), OURS.len(), "{}", said.out);
    assert_eq!(said.err, "", "a warning");
    for kind in OURS {
        let name = format!("{}.{GROUP}", resource(kind).plural);
        let definition = place.get("CustomResourceDefinition", &name).await;
        let conditions = definition.data["status"]["conditions"].as_array().expect("conditions");
        for wanted in ["Established", "NamesAccepted"] {
            assert!(
                conditions.iter().any(|found| found["type"] == wanted && found["status"] == "True"),
                "{name}: {conditions:?}"
            );
        }
        assert!(
            !conditions.iter().any(|found| found["type"] == "NonStructuralSchema"),
            "{name} has no structural schema: {conditions:?}"
        );
    }
}

/// A01: people who know only `kubectl apply` succeed too: no definition is too large for its annotation.
#[tokio::test]
async fn the_definitions_fit_plain_kubectl_apply() {
    let place = Place::new("a01-plain").await;
    let folder = plane::definitions();
    let path = folder.to_str().expect("a path");
    let said = place.kubectl(&["apply", "--dry-run=client", "-o", "json", "-f", path], "").await.ok();
    let list = documents(&said.out).remove(0);
    for definition in list["items"].as_array().expect("a list") {
        let annotation =
            definition["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
                .as_str()
                .map_or_else(|| definition.to_string().len(), str::len);
        assert!(annotation < 256 * 1024, "{}: {annotation} bytes", definition["metadata"]["name"]);
    }
}

/// A06: thresholds as number and as text, in range; the API server refuses what is out of range, or we do in status.
#[tokio::test]
async fn thresholds_are_numbers_or_text_between_zero_and_one() {
    let place = Place::new("a06").await;
    let cache = |threshold: serde_json::Value| {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "InferenceCache", "metadata": {"name": "c"},
            "spec": {"modelName": "m", "kvCacheTransferPolicy": {"thresholdHitRate": threshold, "evictionThreshold": 0.9}}
        })
    };
    for good in [json!(0.8), json!("0.8"), json!(1)] {
        place.try_apply(&cache(good.clone())).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [json!(1.5), json!("abc"), json!(-0.1), json!([]), json!({}), json!(true)] {
        let Err(kube::Error::Api(status)) = place.try_apply(&cache(bad.clone())).await else {
            panic!("{bad} was taken");
        };
        assert!(status.message.contains("thresholdHitRate"), "{}", status.message);
    }
}
