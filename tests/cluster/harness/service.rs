//! What kube-proxy and the cluster's DNS do, for one Service: its address takes connections, and its name is known.
//!
//! A connection goes to the ready endpoints in turn, and stays where it is. Names are written into the `/etc/hosts` that
//! `inside.sh` put there, which pods that are processes see too.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Mutex;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::place::Place;

/// Ready addresses by the name of the port.
type Ready = HashMap<String, Vec<SocketAddr>>;

/// A Service that takes connections until it is dropped.
#[derive(Debug)]
pub struct Service {
    /// Its cluster address.
    pub address: Ipv4Addr,
    tasks: Vec<JoinHandle<()>>,
}

impl Service {
    /// Serves a Service of the place, once somebody is ready behind it, and makes its name known.
    ///
    /// # Panics
    /// When it has no address of its own.
    pub async fn serve(place: &Place, name: &str) -> Self {
        let object = place.get("Service", name).await;
        let address = object.data["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok());
        let address: Ipv4Addr = address.unwrap_or_else(|| panic!("{name} has no address"));
        let (mut ready, follow) = follow(place, name);
        let mut tasks = vec![follow];
        ready.wait_for(somebody).await.expect("followed");
        for port in object.data["spec"]["ports"].as_array().into_iter().flatten() {
            let number = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            let listener =
                TcpListener::bind((address, number)).await.expect("the Service's address is local");
            let port_name = port["name"].as_str().unwrap_or_default().to_owned();
            tasks.push(tokio::spawn(accept(listener, port_name, ready.clone())));
        }
        name_it(place, name, &[address.into()]);
        Self { address, tasks }
    }

    /// Makes the name of a headless Service known: it stands for the addresses of the endpoints that are ready now.
    pub async fn name_headless(place: &Place, name: &str) {
        let (mut ready, follow) = follow(place, name);
        let found = ready.wait_for(somebody).await;
        let addresses: Vec<IpAddr> =
            found.expect("followed").values().flatten().map(SocketAddr::ip).collect();
        follow.abort();
        name_it(place, name, &addresses);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Follows the EndpointSlices of a Service.
fn follow(place: &Place, name: &str) -> (watch::Receiver<Ready>, JoinHandle<()>) {
    let (sender, ready) = watch::channel(Ready::default());
    let selector = format!("kubernetes.io/service-name={name}");
    let api = place.api("EndpointSlice");
    let task = tokio::spawn(async move {
        let (mut slices, mut anew) = (BTreeMap::new(), BTreeMap::new());
        let mut events = pin!(watcher(api, Config::default().labels(&selector)));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => anew.clear(),
                Ok(Event::InitApply(slice)) => {
                    anew.insert(slice.name_any(), slice);
                }
                // A new list is in force when it is whole: a proxy does not forget everybody while it reads.
                Ok(Event::InitDone) => slices = std::mem::take(&mut anew),
                Ok(Event::Apply(slice)) => {
                    slices.insert(slice.name_any(), slice);
                }
                Ok(Event::Delete(slice)) => {
                    slices.remove(&slice.name_any());
                }
                Err(_) => {}
            }
            sender.send_replace(ready_of(slices.values()));
        }
    });
    (ready, task)
}

fn ready_of<'a>(slices: impl Iterator<Item = &'a DynamicObject>) -> Ready {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut ready = Ready::default();
    for slice in slices {
        for port in list(&slice.data["ports"]) {
            let number = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            let all = ready.entry(port["name"].as_str().unwrap_or_default().to_owned()).or_default();
            for endpoint in list(&slice.data["endpoints"]) {
                if endpoint["conditions"]["ready"] != false {
                    let address =
                        endpoint["addresses"][0].as_str().and_then(|text| text.parse::<IpAddr>().ok());
                    all.push(SocketAddr::new(address.expect("an address"), number));
                }
            }
        }
    }
    ready
}

fn somebody(ready: &Ready) -> bool {
    ready.values().any(|all| !all.is_empty())
}

/// A connection that finds nobody is closed.
async fn accept(listener: TcpListener, port: String, ready: watch::Receiver<Ready>) {
    for turn in 0usize.. {
        let Ok((mut client, _)) = listener.accept().await else { return };
        let all = ready.borrow().get(&port).cloned().unwrap_or_default();
        let Some(to) = all.get(turn % all.len().max(1)).copied() else { continue };
        tokio::spawn(async move {
            if let Ok(mut pod) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
            }
        });
    }
}

fn name_it(place: &Place, name: &str, addresses: &[IpAddr]) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WRITING.lock().expect("names");
    let mut hosts =
        std::fs::File::options().append(true).open("/etc/hosts").expect("the names of this namespace");
    for address in addresses {
        writeln!(hosts, "{address} {name}.{}.svc", place.namespace).expect("written");
    }
}
