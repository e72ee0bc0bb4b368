//! What a create request may say, and how it is refused.

use serde_json::{Value, json};
use silo_engine::guest::Seccomp;
use silo_engine::{ContainerSpec, MountSource, NetworkMode, RestartPolicy};

use super::Isolation;
use crate::version::{ApiVersion, MAX_VERSION};

fn create(value: Value) -> crate::error::Answer<ContainerSpec> {
    super::create(value, ApiVersion(MAX_VERSION))
}

fn check(host: Value, expected: Result<&dyn Fn(&ContainerSpec) -> bool, &str>) {
    let got = create(json!({"Image": "x", "HostConfig": host.clone()}));
    match (got, expected) {
        (Ok(spec), Ok(test)) => assert!(test(&spec), "{host}"),
        (Err(e), Err(text)) => assert!(e.message.contains(text), "{host}: {}", e.message),
        (Ok(_), Err(text)) => panic!("{host} should fail with {text}"),
        (Err(e), Ok(_)) => panic!("{host}: {}", e.message),
    }
}

#[test]
fn host_config() {
    check(json!({}), Ok(&|s| s.network == NetworkMode::Bridge && s.restart == RestartPolicy::No));
    check(json!({"Memory": 67_108_864, "NanoCpus": 500_000_000}), Ok(&|s| s.limits.memory == 64 << 20));
    check(json!({"Memory": 1000}), Err("Minimum memory limit allowed is 6MB"));
    check(json!({"NanoCpus": 1_000_000_000_000_i64}), Err("range of CPUs is from 0.01 to"));
    check(json!({"KernelMemory": 5}), Err("HostConfig.KernelMemory"));
    check(json!({"CpuPercent": 101}), Err("range of CPUPercent is from 1 to 100"));
    check(
        json!({"CpuPercent": 5, "NanoCpus": 10_000_000}),
        Err("Nano CPUs and CPU Percent cannot both be set"),
    );
    check(json!({"CpuCount": -1}), Err("CPUCount cannot be negative"));
    check(
        json!({"CpuPercent": 5, "CpuCount": 1, "IOMaximumBandwidth": 7, "IOMaximumIOps": 8, "CgroupParent": "/x"}),
        Ok(&|s| {
            let l = &s.limits;
            (l.cpu_percent, l.cpu_count, l.io_bandwidth, l.io_operations) == (5, 1, 7, 8)
                && l.cgroup_parent == "/x"
        }),
    );
    check(
        json!({
            "BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 1}], "BlkioDeviceWriteBps": null,
            "BlkioDeviceWriteIOps": [{"Path": "/dev/a", "Rate": 2}, {"Path": "/dev/b", "Rate": 3}],
            "BlkioWeightDevice": [{"Path": "/dev/b", "Weight": 400}],
        }),
        Ok(&|s| {
            let [a, b] = &s.limits.io[..] else { return false };
            (a.read_bps, a.write_iops, b.write_iops, b.weight) == (1, 2, 3, 400)
        }),
    );
    check(json!({"BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 5}]}), Err("from 10 to 1000"));
    check(json!({"CpuPercent": 0, "StorageOpt": {}}), Ok(&|_| true));
    check(json!({"RestartPolicy": {"Name": "sometimes"}}), Err("unknown policy 'sometimes'"));
    check(
        json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        Ok(&|s| s.restart == RestartPolicy::OnFailure { max_retries: 3 }),
    );
    check(json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true}), Err("AutoRemove"));
    check(json!({"Isolation": "moon"}), Err("moon"));
    check(json!({"Isolation": "HyperV"}), Ok(&|s| s.isolation == Some(Isolation::Hyperv)));
    check(json!({"StorageOpt": {"size": "2g"}}), Ok(&|s| s.storage_size == 2 << 30));
    check(json!({"StorageOpt": {"size": "lots"}}), Err("lots"));
    check(json!({"memory": 7 << 20}), Ok(&|s| s.limits.memory == 7 << 20));
    check(json!({"NetworkMode": "mine"}), Ok(&|s| s.network == NetworkMode::Named("mine".into())));
    check(json!({"LogConfig": {"Type": "syslog"}}), Err("no log driver named 'syslog'"));
    check(
        json!({"LogConfig": {"Config": {"max-size": "10k", "max-file": "3"}}}),
        Ok(&|s| s.log.max_size == 10_000 && s.log.max_files == 3),
    );
    check(
        json!({"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}),
        Ok(&|s| s.security.no_new_privileges && s.security.seccomp == Seccomp::Unconfined),
    );
    check(json!({"SecurityOpt": ["magic=on"]}), Err("magic=on"));
    check(
        json!({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]}),
        Ok(&|s| s.limits.ulimits["nofile"] == (10, 20)),
    );
}

#[test]
fn binds() {
    check(json!({"Binds": ["/a:/b:ro"]}), Ok(&|s| s.mounts[0].read_only && s.mounts[0].target == "/b"));
    check(json!({"Binds": ["/a:C:\\data"]}), Ok(&|s| s.mounts[0].target == "C:\\data"));
    check(
        json!({"Binds": ["name:/b"]}),
        Ok(&|s| matches!(&s.mounts[0].kind, MountSource::Volume { name, .. } if name == "name")),
    );
    check(json!({"Binds": ["/a:/b:nonsense"]}), Err("invalid mode: nonsense"));
    check(json!({"Mounts": [{"Type": "bind", "Target": "/b"}]}), Err("field Source must not be empty"));
    check(json!({"Mounts": [{"Type": "npipe", "Source": "a", "Target": "/b"}]}), Err("mount type unknown"));
    check(
        json!({"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}),
        Ok(&|s| s.ports[0].host_ports == (8080, 8080) && s.config.exposed_ports == ["80/tcp"]),
    );
}

#[test]
fn volumes_in_the_words_of_dockerd() {
    let bind = |text: &str, wanted: Result<(&str, &str, bool), &str>| {
        let host = json!({"Binds": [text]});
        match wanted {
            Ok((target, mode, copies)) => check(
                host,
                Ok(&|s| {
                    let mount = &s.mounts[0];
                    let copy = matches!(&mount.kind, MountSource::Volume { copy_up: true, .. });
                    (mount.target.as_str(), mount.mode.as_str(), copy) == (target, mode, copies)
                }),
            ),
            Err(why) => check(host, Err(why)),
        }
    };
    bind("vv:/b/../c/", Ok(("/c", "z", true)));
    bind("vv:/b:nocopy,ro", Ok(("/b", "nocopy,ro", false)));
    bind("vv:C:/data/:RO", Ok((r"C:\data", "ro", true)));
    bind("vv:d:rw", Ok(("d:", "rw", true)));
    bind("vv:D:", Ok(("D:", "z", true)));
    bind("vv:/b:ro,rw", Err("invalid mode: ro,rw"));
    bind("/bb:ro", Err("invalid volume specification: '/bb:ro'"));
    bind(":/b", Err("invalid volume specification: ':/b'"));
    bind("aa:/b:ro:z", Err("invalid volume specification: 'aa:/b:ro:z'"));
    let of = |kind: &str, why: &str| format!("invalid mount config for type \"{kind}\": {why}");
    bind("vv:b", Err(&of("volume", "invalid mount path: 'b' mount path must be absolute")));
    bind("vv:/", Err(&of("volume", "invalid specification: destination can't be '/'")));
    bind("vv:/b:rslave", Err(&of("volume", "field BindOptions must not be specified")));
    bind("/a:/b:nocopy", Err(&of("bind", "field VolumeOptions must not be specified")));
    check(json!({"Binds": ["/a:/b:rslave"]}), Ok(&|s| s.mounts[0].propagation == "rslave"));
    let mount = |options: Value, wanted: &str| {
        let mut body = json!({"Type": "volume", "Source": "v", "Target": "/b"});
        for (name, value) in options.as_object().unwrap() {
            body[name] = value.clone();
        }
        check(json!({"Mounts": [body]}), Err(wanted));
    };
    mount(json!({"Target": ""}), &of("volume", "field Target must not be empty"));
    mount(json!({"BindOptions": {}}), &of("volume", "field BindOptions must not be specified"));
    let outside = of("volume", "subpath must be a relative path within the volume");
    for subpath in ["/a", "..", "a/../../b"] {
        mount(json!({"VolumeOptions": {"Subpath": subpath}}), &outside);
    }
    let nameless = json!({"Source": "", "VolumeOptions": {"Subpath": "a"}});
    mount(nameless, "must not set Subpath when using anonymous volumes");
    let written = json!({"Source": "", "ReadOnly": true});
    mount(written, "must not set ReadOnly mode when using anonymous volumes");
    let driver = json!({"VolumeOptions": {"DriverConfig": {"Name": "glue"}}});
    mount(driver, "create v: error looking up volume plugin glue: plugin \"glue\" not found");
    let options = json!({"DriverConfig": {"Options": {"type": "tmpfs"}}, "Subpath": "a/./b/../c"});
    check(
        json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": options}]}),
        Ok(&|s| {
            let MountSource::Volume { options, subpath, .. } = &s.mounts[0].kind else { return false };
            options["type"] == "tmpfs" && subpath == "a/c"
        }),
    );
}

#[test]
fn one_string_is_a_list_of_one() {
    let spec = create(json!({"Image": "x", "Cmd": "true", "Entrypoint": []})).ok().unwrap();
    assert_eq!(spec.config.cmd.unwrap(), ["true"]);
    assert_eq!(spec.config.entrypoint.unwrap(), Vec::<String>::new());
}
