//! The kit's own test of what it does to the machine: users, disks, memory, processes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use seawall_testkit::faults::{self, SmallDisk};
use seawall_testkit::{Owner, SeawallBin, TestDir, process};

/// Whether this process holds a capability (capabilities(7)).
fn is_capable(capability: u32) -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0");
    Ok(u64::from_str_radix(mask.trim(), 16)? >> capability & 1 == 1)
}

const CAP_SYS_ADMIN: u32 = 21;

fn script(directory: &Path, text: &str) -> Result<SeawallBin> {
    let path = directory.join("script");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    SeawallBin::at(path)
}

#[test]
fn a_program_the_owner_cannot_reach_runs_as_the_owner_all_the_same() -> Result<()> {
    let (directory, owner) = (TestDir::new()?, Owner::of_servers()?);
    let private = directory.join("private");
    fs::create_dir(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
    let seawall = script(&private, "#!/bin/sh\nid -u; pwd; echo \"$WORD\" >&2; cat; exit 3\n")?;
    let call = seawall.command(["any"]).env("WORD", "hello").stdin("fed");
    let output = call.fail(3)?;
    assert_eq!(output.stdout, format!("{}\n/\nfed", owner.uid()));
    assert_eq!(output.stderr, "hello\n");
    assert!(call.succeed().is_err());
    assert!(call.fail(4).is_err());
    Ok(())
}

#[test]
fn a_program_is_killed_in_the_middle_or_when_its_time_is_up() -> Result<()> {
    let directory = TestDir::new()?;
    let seawall = script(directory.path(), "#!/bin/sh\necho begun\nexec sleep 60\n")?;
    let begun = Instant::now();
    let killed = seawall.command(["any"]).kill9_after(Duration::from_millis(300))?;
    assert_eq!((killed.signal(), killed.stdout.as_str()), (Some(9), "begun\n"));
    let late = seawall.command(["any"]).timeout(Duration::from_millis(300)).run().unwrap_err();
    assert!(format!("{late:#}").contains("begun"), "{late:#}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    Ok(())
}

#[test]
fn a_tree_given_to_the_owner_is_the_owners() -> Result<()> {
    let (directory, owner) = (TestDir::new()?, Owner::of_servers()?);
    let tree = directory.join("tree");
    fs::create_dir(&tree)?;
    fs::write(tree.join("file"), "x")?;
    owner.symlink(Path::new("nowhere"), &tree.join("link"))?;
    owner.chown_all(&tree)?;
    for path in [tree.clone(), tree.join("file"), tree.join("link")] {
        assert_eq!(fs::symlink_metadata(&path)?.uid(), owner.uid(), "{}", path.display());
    }
    Ok(())
}

#[test]
fn a_small_disk_is_soon_full() -> Result<()> {
    let disk = match SmallDisk::mount(1) {
        Ok(disk) => disk,
        Err(error) => {
            assert!(!is_capable(CAP_SYS_ADMIN)?, "{error:#}");
            return Ok(());
        }
    };
    fs::write(disk.path().join("fits"), vec![0; 500_000])?;
    let full = fs::write(disk.path().join("does not"), vec![0; 700_000]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let path = disk.path().to_owned();
    drop(disk);
    assert!(!path.exists());
    Ok(())
}

#[test]
fn memory_is_measured_and_limited() -> Result<()> {
    const MIB: u64 = 1 << 20;
    let copy = |block: &str, limit: u64| {
        let arguments = ["if=/dev/zero", "of=/dev/null", "count=4", &format!("bs={block}")];
        SeawallBin::at("/bin/dd")?.command(arguments).run_limited(limit)
    };
    let small = match copy("20M", 200 * MIB) {
        Ok(small) => small,
        Err(error) => {
            assert!(!is_capable(CAP_SYS_ADMIN)?, "{error:#}");
            return Ok(());
        }
    };
    assert_eq!(small.output.code(), Some(0), "{small:?}");
    assert!(!small.out_of_memory);
    assert!((20 * MIB..40 * MIB).contains(&small.peak_bytes), "{small:?}");
    assert!((20 * MIB..40 * MIB).contains(&small.peak_resident_bytes), "{small:?}");
    let large = copy("90M", 50 * MIB)?;
    assert_eq!(large.output.signal(), Some(9), "{large:?}");
    assert!(large.out_of_memory);
    Ok(())
}

#[test]
fn files_are_damaged_as_ordered_and_not_in_silence() -> Result<()> {
    let directory = TestDir::new()?;
    let file = directory.join("file");
    fs::write(&file, [0, 2, 4])?;
    faults::flip_bit(&file, 1)?;
    assert_eq!(fs::read(&file)?, [0, 3, 4]);
    assert!(faults::flip_bit(&file, 3).is_err());
    faults::truncate(&file, 2)?;
    assert_eq!(fs::read(&file)?, [0, 3]);
    assert!(faults::truncate(&file, 2).is_err());
    Ok(())
}

#[test]
fn a_seed_always_gives_the_same_delays() {
    let delays = |seed| {
        let mut random = faults::Random::new(seed);
        [(); 8].map(|()| random.delay(Duration::from_millis(50)))
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
    assert!(delays(3).iter().all(|delay| *delay < Duration::from_millis(50)));
}

#[test]
fn waiting_for_what_never_comes_ends() {
    let waited = process::wait_until("rain", Duration::from_millis(20), || Ok(false));
    assert!(waited.unwrap_err().to_string().contains("rain"));
}
