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
    check(json!({"CpuPercent": 5}), Err("HostConfig.CpuPercent"));
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
        Ok(&|s| s.log.max_size == 10240 && s.log.max_files == 3),
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
fn one_string_is_a_list_of_one() {
    let spec = create(json!({"Image": "x", "Cmd": "true", "Entrypoint": []})).ok().unwrap();
    assert_eq!(spec.config.cmd.unwrap(), ["true"]);
    assert_eq!(spec.config.entrypoint.unwrap(), Vec::<String>::new());
}
