//! Every decision that Redis takes for us: one script each, atomic, by Redis's own
//! time, all keys within one slot of a cluster.

use redis::Cmd;

/// How long what has no end of its own is kept after it was last used, in
/// milliseconds: longer than any session or cookie lives.
pub(super) const LASTING: i64 = 400 * 24 * 3600 * 1000;

/// A script and its name in Redis.
pub(super) struct Script {
    code: &'static str,
    inner: redis::Script,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, inner: redis::Script::new(code) }
    }

    pub(super) fn by_hash(&self, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
        filled(redis::cmd("EVALSHA").arg(self.inner.get_hash()), keys, args)
    }

    pub(super) fn whole(&self, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
        filled(redis::cmd("EVAL").arg(self.code), keys, args)
    }
}

fn filled(command: &mut Cmd, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
    command.arg(keys.len()).arg(keys).arg(args);
    std::mem::take(command)
}

/// What scripts share: Redis's own time in milliseconds, unless a test governs it; the
/// attempts that leave a window; and news, which are kept for half an hour.
macro_rules! time {
    () => {
        r"local function time(given)
            if given ~= '' then return tonumber(given) end
            local t = redis.call('TIME')
            return t[1] * 1000 + math.floor(t[2] / 1000)
        end
        local function forget(window, now, length, kind)
            if kind == 'r' then
                local last = redis.call('ZRANGE', window, -1, -1, 'WITHSCORES')[2]
                if last and last + length <= now then redis.call('DEL', window) end
            else
                redis.call('ZREMRANGEBYSCORE', window, '-inf', now - length)
            end
            return redis.call('ZCARD', window)
        end
        local function tell(news, what, value)
            local since = string.format('%.0f', (redis.call('TIME')[1] - 1800) * 1000)
            redis.call('XADD', news, 'MINID', '~', since, '*', what, value)
        end
        "
    };
}

macro_rules! scripts {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// All scripts.
        pub(super) struct Scripts {
            $($(#[doc = $doc])+ pub(super) $name: Script,)+
        }

        impl Default for Scripts {
            fn default() -> Self {
                Self { $($name: Script::new(concat!(time!(), $code)),)+ }
            }
        }
    };
}

scripts! {
    /// Keeps a session. KEYS records, order, ends, active; ARGV keep, id, bytes, end, activity.
    create = r"
        redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
        redis.call('ZADD', KEYS[2], 0, ARGV[2])
        redis.call('ZADD', KEYS[3], ARGV[4], ARGV[2])
        redis.call('ZADD', KEYS[4], ARGV[5], ARGV[2])
        for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
        return 1";
    /// Whose a session is. KEYS owned; ARGV keep, now, id, end.
    own = r"
        local now = time(ARGV[2])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
        redis.call('ZADD', KEYS[1], ARGV[4], ARGV[3])
        redis.call('PEXPIRE', KEYS[1], ARGV[1])
        return 1";
    /// Replaces a record that is still as it was read. KEYS records, ends, active;
    /// ARGV id, before, after, end, activity. 1 done, 0 changed meanwhile, -1 gone.
    replace = r"
        local held = redis.call('HGET', KEYS[1], ARGV[1])
        if not held then return -1 end
        if held ~= ARGV[2] then return 0 end
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
        redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
        redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
        return 1";
    /// Removes records. KEYS records, order, ends, active; ARGV ids. The bytes that there
    /// were, or nothing, one for one.
    remove = r"
        local had = {}
        for i, id in ipairs(ARGV) do
            had[i] = redis.call('HGET', KEYS[1], id)
            redis.call('HDEL', KEYS[1], id)
            for k = 2, 4 do redis.call('ZREM', KEYS[k], id) end
        end
        return had";
    /// Removes what ended or was idle too long. KEYS records, order, ends, active; ARGV
    /// now, how long idle, limit. How many were found, and how many are left.
    sweep = r"
        local now = time(ARGV[1])
        local over = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[3])
        local since = string.format('(%.0f', now - ARGV[2])
        local idle = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', since, 'LIMIT', 0, ARGV[3])
        for _, ids in ipairs({over, idle}) do
            for _, id in ipairs(ids) do
                redis.call('HDEL', KEYS[1], id)
                for k = 2, 4 do redis.call('ZREM', KEYS[k], id) end
            end
        end
        return {math.max(#over, #idle), redis.call('ZCARD', KEYS[2])}";
    /// Records in the order of their ids. KEYS records, order; ARGV from, limit.
    page = r"
        local ids = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
        local page = {}
        for _, id in ipairs(ids) do
            local held = redis.call('HGET', KEYS[1], id)
            if held then
                page[#page + 1] = id
                page[#page + 1] = held
            end
        end
        return page";
    /// Remembers revocations and tells of those that are new. KEYS revoked, news, starts;
    /// ARGV keep, then id, until and both packed, of each. How many were new.
    revoke = r"
        local told = {}
        for i = 2, #ARGV, 3 do
            if redis.call('ZADD', KEYS[1], 'GT', 'CH', ARGV[i + 1], ARGV[i]) == 1 then
                told[#told + 1] = ARGV[i + 2]
            end
        end
        if #told > 0 then
            tell(KEYS[2], 'r', table.concat(told))
            redis.call('INCRBY', KEYS[3], #told)
            for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
        end
        return #told";
    /// Revocations by their end, after one of them. KEYS revoked; ARGV limit, id, until.
    revocations = r"
        local last = ARGV[1] - 1
        if #ARGV == 1 then return redis.call('ZRANGE', KEYS[1], 0, last, 'WITHSCORES') end
        local rank = redis.call('ZRANK', KEYS[1], ARGV[2])
        local score = redis.call('ZSCORE', KEYS[1], ARGV[2])
        if rank and tonumber(score) == tonumber(ARGV[3]) then
            return redis.call('ZRANGE', KEYS[1], rank + 1, rank + ARGV[1], 'WITHSCORES')
        end
        return redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])";
    /// Forgets revocations that are over. KEYS revoked; ARGV now.
    forget = r"
        local now = time(ARGV[1])
        return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)";
    /// Keeps an entry once. KEYS entry, ends; ARGV keep, now, key, value, until, most.
    /// 1 kept, 0 there is one, -1 full.
    put = r"
        local now = time(ARGV[2])
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
        if redis.call('ZSCORE', KEYS[2], ARGV[3]) then return 0 end
        if ARGV[6] ~= '' and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then return -1 end
        local left = math.ceil(ARGV[5] - now)
        if left <= 0 then return 1 end
        redis.call('SET', KEYS[1], ARGV[4], 'PX', left)
        redis.call('ZADD', KEYS[2], ARGV[5], ARGV[3])
        redis.call('PEXPIRE', KEYS[2], ARGV[1])
        return 1";
    /// Takes an entry away, unless fewer were taken than the caller knows of. KEYS entry, ends,
    /// then starts and taken of what is counted; ARGV keep, now, key, known. How many were
    /// taken, and the value; -1 when Redis is behind.
    take = r"
        local now = time(ARGV[2])
        local taken = #KEYS > 2 and tonumber(redis.call('GET', KEYS[4]) or 0) or 0
        if #KEYS > 2 and taken < tonumber(ARGV[4]) then return {-1} end
        local until_ = redis.call('ZSCORE', KEYS[2], ARGV[3])
        local value = redis.call('GETDEL', KEYS[1])
        redis.call('ZREM', KEYS[2], ARGV[3])
        if value and #KEYS > 2 then
            redis.call('INCR', KEYS[3])
            taken = redis.call('INCR', KEYS[4])
            for i = 3, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
        end
        if until_ and tonumber(until_) > now then return {taken, value} end
        return {taken}";
    /// Reads an entry. KEYS entry, ends; ARGV now, key.
    get = r"
        local now = time(ARGV[1])
        local until_ = redis.call('ZSCORE', KEYS[2], ARGV[2])
        if until_ and tonumber(until_) > now then return redis.call('GET', KEYS[1]) end
        return false";
    /// Replaces an entry that is still as it was read, or is not there if nothing was. KEYS
    /// entry, ends; ARGV keep, now, key, before, after, until. 1 done, 0 it is another.
    replace_entry = r"
        local now = time(ARGV[2])
        local until_ = redis.call('ZSCORE', KEYS[2], ARGV[3])
        local held = ''
        if until_ and tonumber(until_) > now then held = redis.call('GET', KEYS[1]) or '' end
        if held ~= ARGV[4] then return 0 end
        local left = math.ceil(ARGV[6] - now)
        if left <= 0 then
            redis.call('DEL', KEYS[1])
            redis.call('ZREM', KEYS[2], ARGV[3])
            return 1
        end
        redis.call('SET', KEYS[1], ARGV[5], 'PX', left)
        redis.call('ZADD', KEYS[2], ARGV[6], ARGV[3])
        redis.call('PEXPIRE', KEYS[2], ARGV[1])
        return 1";
    /// Voids all entries of a family, unless no fewer were taken than the caller knows of.
    /// KEYS taken, ends; ARGV keep, known. How many there were.
    void = r"
        local taken = tonumber(redis.call('GET', KEYS[1]) or 0)
        if taken >= tonumber(ARGV[2]) then return 0 end
        local ids = redis.call('ZRANGE', KEYS[2], 0, -1)
        local name = string.sub(KEYS[2], 1, -#'ends' - 1)
        for _, id in ipairs(ids) do redis.call('DEL', name .. id) end
        redis.call('DEL', KEYS[2])
        redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
        return #ids";
    /// How many entries are live. KEYS ends; ARGV now.
    count = r"
        local now = time(ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
        return redis.call('ZCARD', KEYS[1])";
    /// Counts an attempt in all windows, or in none. KEYS windows; ARGV now, then count,
    /// length, kind (r renewed, d distinct, s sliding) and member of each. The place of the
    /// window with the longest wait and that; or -1, and as bits which held the member before.
    count_attempt = r"
        local now = time(ARGV[1])
        local longest, place = -1, -1
        for i = 1, #KEYS do
            local a = 4 * i - 2
            local count, length, kind = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), ARGV[a + 2]
            local held = forget(KEYS[i], now, length, kind)
            local is_in = kind == 'd' and redis.call('ZSCORE', KEYS[i], ARGV[a + 3])
            if held >= count and not is_in then
                local which = kind == 'r' and -1 or held - count
                local row = redis.call('ZRANGE', KEYS[i], which, which, 'WITHSCORES')
                local wait = (tonumber(row[2]) or now) + length - now
                wait = math.min(math.max(wait, 0), length)
                if wait >= longest then longest, place = wait, i - 1 end
            end
        end
        if place >= 0 then return {place, longest} end
        local before = 0
        for i = 1, #KEYS do
            if redis.call('ZADD', KEYS[i], now, ARGV[4 * i + 1]) == 0 then
                before = before + 2 ^ (i - 1)
            end
            redis.call('PEXPIRE', KEYS[i], ARGV[4 * i - 1])
        end
        return {-1, before}";
    /// How many attempts a window holds. KEYS window; ARGV now, length, kind.
    attempts = r"
        return forget(KEYS[1], time(ARGV[1]), tonumber(ARGV[2]), ARGV[3])";
    /// Gives an attempt back. KEYS windows; ARGV members.
    give_back = r"
        for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end
        return 1";
    /// Replaces the sealed keys if they are as they were read, and tells. KEYS keys, news,
    /// starts; ARGV keep, before, after.
    keys = r"
        local held = redis.call('GET', KEYS[1]) or ''
        if held ~= ARGV[2] then return 0 end
        redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[1])
        tell(KEYS[2], 'k', '')
        redis.call('INCR', KEYS[3])
        for i = 2, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
        return 1";
    /// A sign of life that is a write, so that a primary without replicas can refuse it.
    /// KEYS born, alive, starts, taken, keys, revoked, news; ARGV keep, birth. Since when the
    /// store is, its time in milliseconds, and the counts of starts and of what was taken.
    /// There always are news, so that none at all are a sign of lost ones.
    beat = r"
        local t = redis.call('TIME')
        redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[1])
        redis.call('SET', KEYS[2], t[1], 'PX', ARGV[1])
        if #redis.call('XRANGE', KEYS[7], '-', '+', 'COUNT', 1) == 0 then tell(KEYS[7], 'n', '') end
        for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
        return {redis.call('GET', KEYS[1]), t[1] * 1000 + math.floor(t[2] / 1000),
            tonumber(redis.call('GET', KEYS[3]) or 0), tonumber(redis.call('GET', KEYS[4]) or 0)}";
    /// Counts a start, from no less than was counted before. KEYS starts; ARGV keep, before.
    start = r"
        local held = tonumber(redis.call('GET', KEYS[1]) or 0)
        local starts = math.max(held, tonumber(ARGV[2])) + 1
        redis.call('SET', KEYS[1], string.format('%.0f', starts), 'PX', ARGV[1])
        return starts";
    /// Whose turn it is to look after what all share. KEYS turn; ARGV who, length.
    turn = r"
        local held = redis.call('GET', KEYS[1])
        if held and held ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return 1";
}
