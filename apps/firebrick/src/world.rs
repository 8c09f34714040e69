//! The processes that `mpirun` started together with this one.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use firebrick_core::parallel::Lost;
use firebrick_train::{run::RunInfo, team::Team};

use crate::failure::Failure;

/// Set by Open MPI, by MPICH and by Slurm in the processes that they start.
const STARTED_BY: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// This process among them.
pub struct World {
    pub team: Team,
    #[cfg(feature = "mpi")]
    job: Option<firebrick_train::mpi::Job>,
}

impl World {
    /// Joins the others, if there are any. `stop` is set when the process is told to end.
    pub fn join(stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        match STARTED_BY.iter().any(|name| std::env::var_os(name).is_some()) {
            true => Self::join_mpi(stop),
            false => Ok(Self::alone()),
        }
    }

    #[cfg(feature = "mpi")]
    fn alone() -> Self {
        Self { team: Team::alone(), job: None }
    }

    #[cfg(not(feature = "mpi"))]
    fn alone() -> Self {
        Self { team: Team::alone() }
    }

    #[cfg(feature = "mpi")]
    fn join_mpi(stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let job =
            firebrick_train::mpi::Job::join(stop.clone(), grace()).map_err(anyhow::Error::new)?;
        Ok(Self { team: Team::data_parallel(job.world()), job: Some(job) })
    }

    #[cfg(not(feature = "mpi"))]
    fn join_mpi(_: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let alone = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|size| size == "1"));
        if alone {
            return Ok(Self::alone());
        }
        let problem = "several processes were started to train together, but this build has no MPI; \
                       build with `cargo build --workspace --features firebrick/mpi`";
        Err(Failure::text(crate::failure::MISSING, problem))
    }

    /// All processes must train on the same rows by the same recipe.
    pub fn check(&self, info: &RunInfo) -> Result<(), Failure> {
        for (what, hash) in [("recipe", &info.recipe_sha256), ("training rows", &info.data_sha256)]
        {
            if !self.team.agrees(hash.as_bytes()).map_err(anyhow::Error::new)? {
                let (rank, code) = (self.team.world.rank(), crate::failure::BAD_FILE);
                let problem = format!("rank {rank} has another {what} than rank 0");
                return Err(Failure::text(code, problem));
            }
        }
        Ok(())
    }

    /// Says farewell to the others, who do the same. A process that ends without it makes `mpirun` end them all.
    pub fn leave<T>(self, done: Result<T, Failure>) -> Result<T, Failure> {
        match done {
            Ok(done) => {
                #[cfg(feature = "mpi")]
                if let Some(job) = self.job {
                    job.leave();
                }
                Ok(done)
            }
            Err(failure) => {
                let lost = |error: &anyhow::Error| error.chain().any(|cause| cause.is::<Lost>());
                if !self.team.is_first() && !failure.error.as_ref().is_some_and(lost) {
                    // The first process has most likely found the same: let it speak for all.
                    std::thread::sleep(Duration::from_millis(500));
                }
                Err(failure)
            }
        }
    }
}

/// How long after its first signal a process may wait for others: a little less than Open MPI waits before it kills.
#[cfg(feature = "mpi")]
fn grace() -> Duration {
    let seconds = std::env::var("OMPI_MCA_odls_base_sigkill_timeout");
    let seconds = seconds.ok().and_then(|seconds| seconds.parse::<u32>().ok()).unwrap_or(1);
    Duration::from_secs(seconds.into()).saturating_sub(Duration::from_millis(400))
}
