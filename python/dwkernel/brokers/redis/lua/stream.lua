-- What every script knows of a stream. Put in front of each.
--
-- A script is one step: others see all of it or nothing, and in the append-only file it stands between MULTI
-- and EXEC. So every script checks first and writes then. Numbers: sequences and milliseconds stay far below
-- 2^53, what a double holds exactly; `number` writes them without an exponent.

local EPOCH = redis.call('TIME')
local NOW_US = tonumber(EPOCH[1]) * 1000000 + tonumber(EPOCH[2])
local NOW = math.floor(NOW_US / 1000)

-- How many keys a stream has, in the order of `stream_at`. A consumer's follow.
local STREAM_KEYS = 11
-- So many messages are looked at in one step of something that has many.
local STEP = 16
-- A client's last call is remembered for so long after it.
local CALL_MS = 3600000

local function number(value)
  return string.format('%.0f', value)
end

local function id_of(sequence)
  return number(sequence) .. '-0'
end

local function sequence_of(id)
  return tonumber(string.match(id, '^%d+'))
end

local function field(fields, name)
  for at = 1, #fields, 2 do
    if fields[at] == name then
      return fields[at + 1]
    end
  end
  return nil
end

-- The bytes that a message counts for: those of its fields.
local function size_of(fields)
  local size = 0
  for at = 1, #fields, 2 do
    if fields[at] ~= 'time' then
      size = size + #fields[at + 1]
    end
  end
  return size
end

-- The stream whose keys begin behind `base`; nil if it is not the one that `uid` names: it was deleted, or
-- made anew under its name.
local function stream_at(base, uid)
  local s = {
    info = KEYS[base + 1],
    messages = KEYS[base + 2],
    ids = KEYS[base + 3],
    expiries = KEYS[base + 4],
    later = KEYS[base + 5],
    due = KEYS[base + 6],
    calls = KEYS[base + 7],
    callers = KEYS[base + 8],
    consumers = KEYS[base + 9],
    bell = KEYS[base + 10],
    keys = KEYS[base + 11],
  }
  local found = redis.call('HMGET', s.info, 'uid', 'last', 'time', 'bytes', 'max_age', 'max_bytes',
    'max_messages', 'discard', 'retention', 'keep_last_per_key', 'duplicate_window', 'delayed')
  if not found[1] or found[1] ~= uid then
    return nil
  end
  s.last = tonumber(found[2])
  s.time = tonumber(found[3])
  s.bytes = tonumber(found[4])
  s.max_age = tonumber(found[5] or nil)
  s.max_bytes = tonumber(found[6] or nil)
  s.max_messages = tonumber(found[7] or nil)
  s.discard = found[8]
  s.retention = found[9]
  s.keyed = found[10] == '1'
  s.window = tonumber(found[11])
  s.delayed = tonumber(found[12])
  s.saved = table.concat({ s.last, s.time, s.bytes, s.delayed }, ' ')
  -- An empty stream is a key, too.
  if s.last > 0 and redis.call('EXISTS', s.messages) == 0 then
    error('the messages of this stream are gone: their key was evicted or deleted')
  end
  return s
end

-- Where memory is full a script may not begin with a command that takes more of it; once it has written it may.
-- What only reads, or makes room, has to go on then: so it begins by deleting what is not there.
local function go_on(s)
  redis.call('ZREM', s.due, '')
end

-- Writes what `append`, `drop` and others changed. What is as it was is not synced again.
local function save(s)
  local saved = table.concat({ s.last, s.time, s.bytes, s.delayed }, ' ')
  if saved == s.saved then
    return
  end
  s.saved = saved
  redis.call('HSET', s.info, 'last', number(s.last), 'time', number(s.time), 'bytes', number(s.bytes),
    'delayed', number(s.delayed))
end

local NOT_FOUND = { 'stream.not_found' }

-- --- Calls ----------------------------------------------------------------------------------------
-- A client whose connection breaks does not know whether its call was done. Each of its lanes has one call
-- at a time, and the last one's reply is kept: sent again, the call is not done again. One that comes late,
-- behind a later call of its lane, is refused: its caller has given it up.

local function recall(s, lane, call)
  local known = redis.call('HGET', s.calls, lane)
  if not known then
    return nil
  end
  local space = string.find(known, ' ', 1, true)
  local last = tonumber(string.sub(known, 1, space - 1))
  if last == tonumber(call) then
    return cmsgpack.unpack(string.sub(known, space + 1))
  end
  if last > tonumber(call) then
    return { 'stale' }
  end
  return nil
end

local function remember(s, lane, call, reply)
  redis.call('HSET', s.calls, lane, call .. ' ' .. cmsgpack.pack(reply))
  redis.call('ZADD', s.callers, NOW, lane)
  local idle = redis.call('ZRANGEBYSCORE', s.callers, '-inf', NOW - CALL_MS, 'LIMIT', 0, STEP)
  if #idle > 0 then
    redis.call('HDEL', s.calls, unpack(idle))
    redis.call('ZREM', s.callers, unpack(idle))
  end
  return reply
end

-- --- Messages -------------------------------------------------------------------------------------

-- The fields of a message; nil if the stream has let it go.
local function message_of(s, sequence)
  local id = id_of(sequence)
  local found = redis.call('XRANGE', s.messages, id, id)
  return found[1] and found[1][2]
end

-- The number under which a message id was taken within the window.
local function known_as(s, message_id)
  local known = redis.call('HGET', s.ids, message_id)
  if not known then
    return nil
  end
  local sequence, expiry = string.match(known, '^(%d+) (%d+)$')
  return tonumber(expiry) > NOW and tonumber(sequence) or nil
end

local function forget_ids(s)
  local old = redis.call('ZRANGEBYSCORE', s.expiries, '-inf', NOW, 'LIMIT', 0, STEP)
  if #old > 0 then
    redis.call('HDEL', s.ids, unpack(old))
    redis.call('ZREM', s.expiries, unpack(old))
  end
end

-- Notes that a message is not there any more.
local function removed(s, sequence, fields)
  s.bytes = s.bytes - size_of(fields)
  local key = s.keyed and field(fields, 'key')
  if key and redis.call('HGET', s.keys, key) == number(sequence) then
    redis.call('HDEL', s.keys, key)
  end
end

local function remove(s, sequence, fields)
  redis.call('XDEL', s.messages, id_of(sequence))
  removed(s, sequence, fields)
end

-- Lets the oldest messages go: `count` of them, those up to the number `last`.
local function drop(s, count, last)
  local gone = redis.call('XRANGE', s.messages, '-', last and id_of(last) or '+', 'COUNT', count)
  if #gone > 0 then
    redis.call('XTRIM', s.messages, 'MINID', '=', id_of(sequence_of(gone[#gone][1]) + 1))
    for _, entry in ipairs(gone) do
      removed(s, sequence_of(entry[1]), entry[2])
    end
  end
  return #gone
end

-- Takes a message in. Returns its number, and whether it was there before.
local function append(s, fields)
  local message_id = s.window > 0 and field(fields, 'message_id')
  local known = message_id and known_as(s, message_id)
  if known then
    return known, true
  end
  s.last = s.last + 1
  s.time = math.max(s.time, NOW_US)
  redis.call('XADD', s.messages, id_of(s.last), 'time', number(s.time), unpack(fields))
  s.bytes = s.bytes + size_of(fields)
  if message_id then
    local expiry = number(NOW + s.window)
    redis.call('HSET', s.ids, message_id, number(s.last) .. ' ' .. expiry)
    redis.call('ZADD', s.expiries, expiry, message_id)
    forget_ids(s)
  end
  local key = s.keyed and field(fields, 'key')
  if key then
    local before = redis.call('HGET', s.keys, key)
    local older = before and message_of(s, tonumber(before))
    if older then
      remove(s, tonumber(before), older)
    end
    redis.call('HSET', s.keys, key, number(s.last))
  end
  return s.last, false
end

-- Lets go what is over the limits. The last message stays.
local function keep_limits(s)
  if s.max_messages then
    local over = redis.call('XLEN', s.messages) - s.max_messages
    while over > 0 do
      over = over - drop(s, math.min(over, STEP))
    end
  end
  while s.max_bytes and s.bytes > s.max_bytes and redis.call('XLEN', s.messages) > 1 do
    drop(s, 1)
  end
end

-- Lets go some of what is too old.
local function keep_age(s)
  if not s.max_age then
    return
  end
  local before = NOW_US - s.max_age * 1000
  for _ = 1, STEP do
    local oldest = redis.call('XRANGE', s.messages, '-', '+', 'COUNT', STEP)
    local count = 0
    while oldest[count + 1] and tonumber(field(oldest[count + 1][2], 'time')) <= before do
      count = count + 1
    end
    if count > 0 then
      drop(s, count)
    end
    if count < STEP then
      return
    end
  end
end

-- Says why there is no room for `count` more messages of `bytes`; nil if there is.
local function full(s, count, bytes)
  if s.discard ~= 'new' or count == 0 then
    return nil
  end
  if s.max_messages and redis.call('XLEN', s.messages) + count > s.max_messages then
    return number(s.max_messages) .. ' messages'
  end
  if s.max_bytes and s.bytes + bytes > s.max_bytes then
    return number(s.max_bytes) .. ' bytes'
  end
  return nil
end

-- Takes in some of the delayed messages that are due. What there is no room for waits on.
local function take_due(s)
  local due = redis.call('ZRANGEBYSCORE', s.due, '-inf', NOW, 'LIMIT', 0, STEP * 4)
  for _, name in ipairs(due) do
    local id = id_of(tonumber(name))
    local entry = redis.call('XRANGE', s.later, id, id)[1]
    if entry then
      if full(s, 1, size_of(entry[2])) then
        break
      end
      append(s, entry[2])
      redis.call('XDEL', s.later, id)
    end
    redis.call('ZREM', s.due, name)
  end
  if #due > 0 then
    keep_limits(s)
  end
end

-- Does what time asks for. Returns the milliseconds until it asks again, -1 if it does not.
local function tend(s)
  keep_age(s)
  take_due(s)
  save(s)
  local next_due = redis.call('ZRANGE', s.due, 0, 0, 'WITHSCORES')[2]
  return next_due and math.max(50, tonumber(next_due) - NOW) or -1
end

-- Lets go what every consumer has done, where messages are kept for consumers.
local function release(s)
  if s.retention == 'limits' then
    return
  end
  local slowest = redis.call('ZRANGE', s.consumers, 0, 0, 'WITHSCORES')[2]
  if slowest then
    for _ = 1, 64 do
      if drop(s, STEP, tonumber(slowest)) < STEP then
        break
      end
    end
    save(s)
  end
end

-- Wakes those who wait for something else than a new message.
local function ring(s)
  local count = redis.call('HINCRBY', s.info, 'bell', 1)
  redis.call('XADD', s.bell, 'MAXLEN', '=', 1, id_of(count), 'rung', '1')
end

-- The first message that was taken in at `time_us` or later; the next one if there is none. Times never go
-- down, so halving finds it.
local function first_since(s, time_us)
  local low = redis.call('XRANGE', s.messages, '-', '+', 'COUNT', 1)[1]
  local from, to = low and sequence_of(low[1]) or s.last + 1, s.last + 1
  while from < to do
    local middle = math.floor((from + to) / 2)
    local entry = redis.call('XRANGE', s.messages, id_of(middle), '+', 'COUNT', 1)[1]
    if entry and tonumber(field(entry[2], 'time')) < time_us then
      from = sequence_of(entry[1]) + 1
    else
      to = middle
    end
  end
  return from
end
