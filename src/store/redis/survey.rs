//! What an operator wants to know of a Redis, asked without changing anything in it.

use redis::{Cmd, FromRedisValue, Value};

use crate::ambient::Clock;
use crate::config::RedisStore;
use crate::store::redis::connect::Target;

/// The version from which on everything works.
const OLDEST: (u64, u64) = (6, 2);
/// Commands that scripts run and that are sent, with what they need; `K` stands for a
/// key. What cannot be asked about has been used by then.
const NEEDED: &[&str] = &[
    "time",
    "get K",
    "set K v",
    "del K",
    "getdel K",
    "incr K",
    "incrby K 1",
    "pexpire K 1",
    "hget K f",
    "hset K f v",
    "hdel K f",
    "zadd K 1 m",
    "zrem K m",
    "zcard K",
    "zscore K m",
    "zrank K m",
    "zrange K 0 1",
    "zrangebyscore K 0 1",
    "zrangebylex K - +",
    "zremrangebyscore K 0 1",
    "xadd K * f v",
    "xread STREAMS K 0",
    "xrange K - +",
    "xrevrange K + -",
    "wait 1 1",
    "evalsha x 1 K",
    "ping",
    "role",
];
/// The time in milliseconds, whether it tells rights, and those of ARGV, given with
/// `KEYS[1]` and the first of ARGV for `K`, that the user lacks. Runs none of them.
const SCRIPT: &str = r"
    local t = redis.call('TIME')
    local denied, tells = {}, redis.acl_check_cmd ~= nil
    for i = 2, tells and #ARGV or 0 do
        for _, key in ipairs({KEYS[1], ARGV[1]}) do
            local command = {}
            for word in string.gmatch(ARGV[i], '%S+') do
                command[#command + 1] = word == 'K' and key or word
            end
            if not redis.acl_check_cmd(unpack(command)) then
                denied[#denied + 1] = command[1]
                break
            end
        end
    end
    return {t[1] * 1000 + math.floor(t[2] / 1000), tells and 1 or 0, denied}";

/// What a Redis says of itself.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Its version.
    pub version: String,
    /// Replicas that follow it now.
    pub replicas: usize,
    /// The count of starts of gateways, revocations, redemptions and changes of keys.
    pub starts: Option<u64>,
    /// How far its clock is ahead of ours, in milliseconds.
    pub ahead: i64,
    /// The commands that the user would need and may not run; `None` when it does not
    /// tell.
    pub denied: Option<Vec<String>>,
}

impl Survey {
    /// Whether it lacks what is needed.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version < OLDEST
    }
}

/// Asks the server that holds what is one for all gateways.
///
/// # Errors
/// Why it does not answer as it should.
pub async fn survey(settings: &RedisStore, clock: &Clock) -> Result<Survey, String> {
    let target = Target::of(settings).map_err(|error| error.to_string())?;
    let key = |slice: &str, name: &str| format!("{{{}{slice}}}:{name}", settings.key_prefix);
    let (common, starts) = (key("", "examined"), key("", "starts"));
    let mut judging = redis::cmd("EVAL");
    judging.arg(SCRIPT).arg(1).arg(&common).arg(key(":00", "examined")).arg(NEEDED);
    let get = redis::cmd("GET").arg(&starts).take();
    let commands = [info("server"), info("replication"), get, judging];
    let before = clock.now().millis();
    let answers = target.ask(&commands, common.as_bytes()).await?;
    let now = i64::midpoint(before, clock.now().millis());
    let [server, replication, starts, judged] =
        <[Value; 4]>::try_from(answers).map_err(|_| "not all was answered".to_owned())?;
    let (server, replication): (String, String) = (read(server)?, read(replication)?);
    let (time, tells, denied): (i64, bool, Vec<String>) = read(judged)?;
    Ok(Survey {
        version: field(&server, "redis_version:").unwrap_or("of no known version").to_owned(),
        replicas: replication.lines().filter(|line| is_replica(line)).count(),
        starts: read(starts)?,
        ahead: time.saturating_sub(now),
        denied: tells.then_some(denied),
    })
}

fn info(section: &str) -> Cmd {
    redis::cmd("INFO").arg(section).take()
}

fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a line of its information tells of a replica that follows.
pub(super) fn is_replica(line: &str) -> bool {
    line.starts_with("slave") && line.contains(":ip=") && line.contains("state=online")
}

fn read<A: FromRedisValue>(value: Value) -> Result<A, String> {
    redis::from_redis_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{NEEDED, Survey};

    #[test]
    fn what_is_asked_about_is_what_the_documentation_grants() {
        let page = include_str!("../../../docs/operations.md");
        let user = page.lines().find(|line| line.starts_with("user bindgate on ")).unwrap();
        let granted: BTreeSet<&str> =
            user.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
        let needed = NEEDED.iter().filter_map(|command| command.split(' ').next());
        // Used for the question itself, at the connection, or with another topology alone.
        let others = ["eval", "info", "select", "cluster|slots", "cluster|shards"];
        assert_eq!(needed.chain(others).collect::<BTreeSet<_>>(), granted);
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        for (version, is_too_old) in
            [("7.0.15", false), ("6.2.0", false), ("10.1", false), ("6.0.16", true), ("?", true)]
        {
            let version = version.to_owned();
            let survey = Survey { version, replicas: 0, starts: None, ahead: 0, denied: None };
            assert_eq!(survey.is_too_old(), is_too_old, "{}", survey.version);
        }
    }
}
