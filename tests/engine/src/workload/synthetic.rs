//! Four workloads that tell routers apart. Their shapes are our own; where a length is after something published, it says
//! so. The rate is a parameter, the pauses within a session are not: to load a fleet more, more sessions run at once.

use std::time::Duration;

use fastrand::Rng;

use super::conversation::{Conversation, Ids};
use super::sample::{Zipf, exponential, geometric, log_normal, tokens};
use super::{Request, Workload};

const BLOCK_TOKENS: u32 = 64;

/// How much of a workload, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Requests.
    pub requests: usize,
    /// Mean arrivals per second, of all requests together.
    pub requests_per_second: f64,
    /// Of the generator.
    pub seed: u64,
}

/// Multi-turn chats that share nothing with each other: five turns in the mean, 20 s (median) after one another. Messages
/// and answers are as long as WildChat's (Zhao et al., ICLR 2024: 296 and 441 tokens in the mean).
pub fn chats(shape: Shape) -> Workload {
    const TURNS: f64 = 5.0;
    generate("chats", (shape, TURNS), |making| {
        while making.starts_another() {
            let turns = geometric(&mut making.rng, TURNS);
            let mut said = Conversation::new(BLOCK_TOKENS);
            making.turns(&mut said, &Turns { turns, pause_seconds: 20.0, said_tokens: 180.0, tenant: 0 });
        }
    })
}

/// Every request begins with the same 4,096 tokens, as behind one assistant with long instructions; one or two short
/// turns each. Longest-prefix routing sends all of it to one engine.
pub fn shared_system(shape: Shape) -> Workload {
    const TURNS: f64 = 1.5;
    const SYSTEM_TOKENS: u32 = 4_096;
    generate("shared system prompt", (shape, TURNS), |making| {
        let mut system = Conversation::new(BLOCK_TOKENS);
        system.say(SYSTEM_TOKENS, &mut making.ids);
        while making.starts_another() {
            let turns = geometric(&mut making.rng, TURNS);
            let turns = Turns { turns, pause_seconds: 15.0, said_tokens: 300.0, tenant: 0 };
            making.turns(&mut system.clone(), &turns);
        }
    })
}

/// 256 tenants, each with a prompt of its own of 2,000 to 12,000 tokens; a tenant's popularity falls with its rank by
/// Zipf's law with exponent 1 (Breslau et al., INFOCOM 1999, found 0.64 to 0.83 for web documents; we take the harder
/// case). Together about 1.5 M tokens: more than one engine holds.
pub fn tenants(shape: Shape) -> Workload {
    const TURNS: f64 = 1.25;
    const TENANTS: usize = 256;
    generate("zipf tenants", (shape, TURNS), |making| {
        let popularity = Zipf::new(TENANTS, 1.0);
        let mut prompts = Vec::new();
        for _ in 0..TENANTS {
            let mut prompt = Conversation::new(BLOCK_TOKENS);
            prompt.say(tokens(&mut making.rng, 5_000.0, 0.5, (2_000, 12_000)), &mut making.ids);
            prompts.push(prompt);
        }
        while making.starts_another() {
            let tenant = popularity.sample(&mut making.rng);
            let turns = geometric(&mut making.rng, TURNS);
            let turns = Turns { turns, pause_seconds: 15.0, said_tokens: 150.0, tenant: tenant as u32 + 1 };
            making.turns(&mut prompts[tenant].fork(u32::MAX), &turns);
        }
    })
}

/// Agents in tool loops: one of eight kinds of agent (3,008 tokens of instructions and tools each), a task of its own, and
/// calls that follow each other within seconds, each adding a tool's result. Now and then a call branches into two to four
/// that go on from the same prefix at the same time.
pub fn agentic(shape: Shape) -> Workload {
    const KINDS: usize = 8;
    const CALLS: f64 = 10.0;
    generate("agentic", (shape, CALLS * 1.5), |making| {
        let mut kinds = Vec::new();
        for _ in 0..KINDS {
            let mut kind = Conversation::new(BLOCK_TOKENS);
            kind.say(3_008, &mut making.ids);
            kinds.push(kind);
        }
        while making.starts_another() {
            let kind = making.rng.usize(..KINDS);
            let mut said = kinds[kind].clone();
            let task = tokens(&mut making.rng, 800.0, 0.7, (100, 8_000));
            said.say(task, &mut making.ids);
            let calls = geometric(&mut making.rng, CALLS);
            let run =
                Loop { calls, branches: true, tenant: kind as u32 + 1, at: making.start, follows: None };
            making.tool_loop(said, run);
        }
    })
}

/// Makes a workload three times: sessions ramp up from none and branch, so how often they must start for the rate asked
/// for is found by trying.
fn generate(name: &str, (shape, per_session): (Shape, f64), fill: impl Fn(&mut Making)) -> Workload {
    let make = |per_session| {
        let mut making = Making::new(shape, per_session);
        fill(&mut making);
        making.done(name)
    };
    let mut per_session = per_session;
    for _ in 0..2 {
        let workload = make(per_session);
        let rate = workload.requests.len() as f64 / workload.span().as_secs_f64().max(1e-9);
        per_session *= rate / shape.requests_per_second.max(1e-9);
    }
    make(per_session)
}

struct Turns {
    turns: u32,
    /// Median pause between an answer's arrival time and the next question.
    pause_seconds: f64,
    /// Median of what the user says.
    said_tokens: f64,
    tenant: u32,
}

struct Loop {
    calls: u32,
    branches: bool,
    tenant: u32,
    at: Duration,
    follows: Option<usize>,
}

/// A workload in the making: requests are in order of their session's start and sorted in the end.
struct Making {
    shape: Shape,
    rng: Rng,
    ids: Ids,
    requests: Vec<Request>,
    /// When the next session starts.
    start: Duration,
    between: Duration,
    session: u64,
}

impl Making {
    fn new(shape: Shape, requests_per_session: f64) -> Self {
        let between = Duration::from_secs_f64(requests_per_session / shape.requests_per_second.max(1e-9));
        Self {
            shape,
            rng: Rng::with_seed(shape.seed),
            ids: Ids::default(),
            requests: Vec::new(),
            start: Duration::ZERO,
            between,
            session: 0,
        }
    }

    fn starts_another(&mut self) -> bool {
        self.start += exponential(&mut self.rng, self.between);
        self.session += 1;
        // The sessions that start last are cut off in the end: more are made than are kept.
        self.requests.len() < self.shape.requests + self.shape.requests / 4 + 100
    }

    fn ask(&mut self, said: &Conversation, tenant: u32, (at, follows): (Duration, Option<usize>)) -> u32 {
        let output_tokens = tokens(&mut self.rng, 320.0, 0.8, (8, 2_000));
        self.requests.push(Request {
            arrival: at,
            follows,
            session: self.session,
            tenant,
            blocks: said.blocks(),
            prompt_tokens: said.tokens(),
            output_tokens,
        });
        output_tokens
    }

    fn turns(&mut self, said: &mut Conversation, turns: &Turns) {
        let (mut at, mut follows) = (self.start, None);
        for _ in 0..turns.turns {
            let words = tokens(&mut self.rng, turns.said_tokens, 1.0, (8, 4_000));
            said.say(words, &mut self.ids);
            let output_tokens = self.ask(said, turns.tenant, (at, follows));
            follows = Some(self.requests.len() - 1);
            said.say(output_tokens, &mut self.ids);
            at += Duration::from_secs_f64(5.0 + log_normal(&mut self.rng, turns.pause_seconds, 0.7));
        }
    }

    fn tool_loop(&mut self, mut said: Conversation, mut run: Loop) {
        for call in 0..run.calls {
            // A call writes little: the name of a tool and its arguments.
            let output_tokens = self.ask(&said, run.tenant, (run.at, run.follows));
            let last = self.requests.len() - 1;
            self.requests[last].output_tokens = output_tokens.div_ceil(4);
            run.follows = Some(last);
            said.say(self.requests[last].output_tokens, &mut self.ids);
            let result = tokens(&mut self.rng, 400.0, 1.0, (20, 6_000));
            run.at += Duration::from_secs_f64(2.0 + log_normal(&mut self.rng, 3.0, 0.8));
            if run.branches && call > 0 && self.rng.f64() < 0.06 {
                for _ in 0..self.rng.u32(2..=4) {
                    let mut branch = said.fork(u32::MAX);
                    branch.say(result / 2 + 20, &mut self.ids);
                    let calls = geometric(&mut self.rng, 3.0);
                    self.tool_loop(branch, Loop { calls, branches: false, ..run });
                }
            }
            said.say(result, &mut self.ids);
        }
    }

    /// Sorts by arrival, keeps as many as asked for, and points `follows` at the new places.
    fn done(self, name: &str) -> Workload {
        let mut order: Vec<usize> = (0..self.requests.len()).collect();
        order.sort_by_key(|at| (self.requests[*at].arrival, *at));
        order.truncate(self.shape.requests);
        let mut places = vec![None; self.requests.len()];
        for (place, at) in order.iter().enumerate() {
            places[*at] = Some(place);
        }
        let moved = |at: &usize| {
            let request = self.requests[*at].clone();
            Request { follows: request.follows.and_then(|before| places[before]), ..request }
        };
        let requests = order.iter().map(moved).collect();
        Workload { name: name.to_owned(), block_tokens: BLOCK_TOKENS, requests }
    }
}
