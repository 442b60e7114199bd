//! A look at all repositories of a command, for `info`, `list`, `show`, `wal list` and `status`.

use std::path::Path;

use futures_util::future::join_all;
use seawall_core::{ClusterName, Error, Result};
use seawall_engine::lines::{no_such_cluster, stored_clusters};
use seawall_engine::named_twice::named_twice;
use seawall_engine::survey::{
    ClusterSurvey, DamagedTimeline, Depth, NamedRepository, Surveyed, stored_bytes, survey_all,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::args::RepositoryArgs;
use crate::context::{Context, Opened, Place, Target};
use crate::exit::Outcome;
use crate::{render, run};

/// Everything a look at the repositories showed.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// The clusters, by name.
    pub clusters: Vec<ClusterSurvey>,
    /// The repositories.
    pub repositories: Vec<RepositoryReport>,
    /// What could not be looked at.
    #[serde(skip)]
    problems: Vec<Problem>,
    /// Second names of a repository: it is there once, under its first.
    #[serde(skip)]
    pub twice: Vec<NamedTwice>,
    #[serde(skip)]
    opened: Vec<Opened>,
    #[serde(skip)]
    runtime: Runtime,
}

/// A repository that is there under another name too.
#[derive(Debug)]
pub struct NamedTwice {
    /// The second name.
    name: String,
    /// What is wrong with that.
    pub error: Error,
}

impl NamedTwice {
    /// Whether a cluster goes by it.
    pub fn concerns(&self, target: &Target) -> bool {
        target.places.iter().any(|place| place.name == self.name)
    }
}

/// Something that could not be looked at.
#[derive(Debug)]
pub struct Problem {
    of: Concerned,
    /// Why.
    pub error: Error,
}

#[derive(Debug)]
enum Concerned {
    Repository(String),
    Cluster(ClusterName),
}

impl Problem {
    /// Whether it leaves something unknown of a cluster.
    pub fn concerns(&self, target: &Target) -> bool {
        match &self.of {
            Concerned::Repository(name) => target.places.iter().any(|place| place.name == *name),
            Concerned::Cluster(name) => *name == target.name,
        }
    }
}

/// A repository.
#[derive(Debug, Serialize)]
pub struct RepositoryReport {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Bytes of all its objects; `None` if it was not measured or cannot be reached.
    pub stored_bytes: Option<u64>,
    /// Its format; `None` if it cannot be opened.
    pub format: Option<u32>,
}

impl Overview {
    /// Looks at every repository of the clusters named. One that cannot be reached does not hide
    /// the others: it is told by [`Self::finish`].
    ///
    /// # Errors
    /// Those of the configuration, [`seawall_core::Code::NoSuchCluster`], and the first
    /// repository's if none can be opened.
    pub fn collect(
        config: Option<&Path>,
        named: Option<&ClusterName>,
        flags: &RepositoryArgs,
        depth: Depth,
    ) -> Result<Self> {
        let mut overview = Self::whatever_opens(&Context::new(config, flags)?, named, depth)?;
        overview.twice.iter().for_each(|twice| render::warn(&twice.error));
        match overview.problems.pop() {
            Some(problem) if overview.opened.is_empty() => Err(problem.error),
            last => {
                overview.problems.extend(last);
                Ok(overview)
            }
        }
    }

    /// As [`Self::collect`]; if no repository can be opened, the clusters are there without anything
    /// being known of them.
    ///
    /// # Errors
    /// Those of the configuration, [`seawall_core::Code::NoSuchCluster`].
    pub fn whatever_opens(
        context: &Context,
        cluster: Option<&ClusterName>,
        depth: Depth,
    ) -> Result<Self> {
        let mut targets = context.known_targets(cluster)?;
        context.become_owner(None)?;
        let runtime = run::runtime()?;
        let places = if targets.is_empty() { context.places() } else { union(&targets) };
        let Shelves { opened, repositories, mut problems, twice } =
            runtime.block_on(open_all(places));
        let by_repository = context.config.clusters.is_empty() && !opened.is_empty();
        let clusters = runtime.block_on(async {
            if by_repository {
                targets = stored_targets(&opened).await?;
            }
            if let Some(name) = cluster {
                targets.retain(|target| target.name == *name);
                let is_due =
                    |it: &Opened| context.config.clusters_in(&it.place.name).contains(name);
                if !opened.is_empty() && !opened.iter().any(is_due) {
                    prove_stored_somewhere(&opened, name, &mut problems).await?;
                }
            }
            for target in &mut targets {
                target.places.retain(|place| !twice.iter().any(|it| it.name == place.name));
            }
            let looked_at: Vec<_> = targets.iter().map(|target| named(target, &opened)).collect();
            let mut clusters = Vec::new();
            for Surveyed { cluster, problems: own } in survey_all(&looked_at, depth).await {
                let of = || Concerned::Cluster(cluster.name.clone());
                problems.extend(own.into_iter().map(|error| Problem { of: of(), error }));
                clusters.push(cluster);
            }
            Ok::<_, Error>(clusters)
        })?;
        Ok(Self { clusters, repositories, problems, twice, opened, runtime })
    }

    /// Adds something that could not be learned of a cluster.
    pub fn add_problem(&mut self, cluster: ClusterName, error: Error) {
        self.problems.push(Problem { of: Concerned::Cluster(cluster), error });
    }

    /// Adds up what the repositories hold.
    pub fn measure(&mut self) {
        let measured = self.opened.iter().map(|opened| stored_bytes(&opened.repository));
        let measured = self.runtime.block_on(join_all(measured));
        for (Opened { place, .. }, measured) in self.opened.iter().zip(measured) {
            match measured {
                Ok(bytes) => {
                    let mut reports = self.repositories.iter_mut();
                    if let Some(report) = reports.find(|report| report.name == place.name) {
                        report.stored_bytes = Some(bytes);
                    }
                }
                Err(error) => {
                    let of = Concerned::Repository(place.name.clone());
                    self.problems.push(Problem { of, error });
                }
            }
        }
    }

    /// What could not be looked at, for a command that tells it itself.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// What `list --json` prints.
    pub fn backups_only(&self) -> Value {
        let clusters = self.clusters.iter();
        let clusters: Vec<Value> = clusters
            .map(|cluster| json!({"name": cluster.name, "backups": cluster.backups}))
            .collect();
        json!({ "clusters": clusters })
    }

    /// Tells what could not be looked at and what is damaged, after what could be.
    ///
    /// # Errors
    /// The last of those problems.
    pub fn finish(self) -> Result<Outcome> {
        let damaged = self.clusters.iter().flat_map(|cluster| &cluster.damaged_histories);
        let mut errors: Vec<Error> = damaged.map(DamagedTimeline::error).collect();
        errors.extend(self.problems.into_iter().map(|problem| problem.error));
        let Some(last) = errors.pop() else { return Ok(Outcome::Done) };
        errors.iter().for_each(render::report);
        Err(last)
    }
}

/// A cluster and its repositories, as far as they are open.
fn named(target: &Target, opened: &[Opened]) -> (ClusterName, Vec<NamedRepository>) {
    let repository = |place: &Place| {
        let opened = opened.iter().find(|opened| opened.place.name == place.name);
        let repository = opened.map(|opened| opened.repository.clone());
        NamedRepository { name: place.name.clone(), repository }
    };
    (target.name.clone(), target.places.iter().map(repository).collect())
}

/// The repositories of all targets, each once.
fn union(targets: &[Target]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for place in targets.iter().flat_map(|target| &target.places) {
        if !places.iter().any(|known| known.name == place.name) {
            places.push(place.clone());
        }
    }
    places
}

/// Repositories, each under one name.
#[derive(Default)]
struct Shelves {
    opened: Vec<Opened>,
    repositories: Vec<RepositoryReport>,
    problems: Vec<Problem>,
    twice: Vec<NamedTwice>,
}

async fn open_all(places: Vec<Place>) -> Shelves {
    let mut shelves = Shelves::default();
    let results = join_all(places.iter().map(|place| place.clone().open())).await;
    for (place, result) in places.into_iter().zip(results) {
        let (name, url) = (place.name, place.url.to_string());
        let format = result.as_ref().ok().map(|opened| opened.repository.format());
        match result {
            Ok(opened) => {
                let before = shelves.opened.iter();
                let before = before.map(|it| (it.place.name.as_str(), &it.repository));
                if let Some(error) = named_twice(before, &name, &opened.repository) {
                    shelves.twice.push(NamedTwice { name, error });
                    continue;
                }
                shelves.opened.push(opened);
            }
            Err(error) => {
                shelves.problems.push(Problem { of: Concerned::Repository(name.clone()), error });
            }
        }
        shelves.repositories.push(RepositoryReport { name, url, stored_bytes: None, format });
    }
    shelves
}

/// The clusters that repositories hold.
async fn stored_names(opened: &[Opened]) -> Result<Vec<ClusterName>> {
    let mut names: Vec<ClusterName> = Vec::new();
    for opened in opened {
        names.extend(stored_clusters(&opened.repository).await?);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Proves that a cluster of which only repositories can know is in one of them. Where one did not
/// answer that is not known, and it says why.
async fn prove_stored_somewhere(
    opened: &[Opened],
    name: &ClusterName,
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let names = stored_names(opened).await?;
    if names.contains(name) {
        return Ok(());
    }
    Err(match problems.pop() {
        Some(unanswered) => unanswered.error,
        None => no_such_cluster(name, names.iter()),
    })
}

/// The clusters the repositories hold, for a command without configuration.
async fn stored_targets(opened: &[Opened]) -> Result<Vec<Target>> {
    let places: Vec<Place> = opened.iter().map(|opened| opened.place.clone()).collect();
    let config_path = std::path::PathBuf::new();
    let target = |name| Target {
        name,
        config: None,
        config_path: config_path.clone(),
        places: places.clone(),
    };
    Ok(stored_names(opened).await?.into_iter().map(target).collect())
}
