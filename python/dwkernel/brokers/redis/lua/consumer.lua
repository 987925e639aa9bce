-- What scripts know of a consumer. Put behind stream.lua where there is one.
--
-- What was handed out and is not done is *held*: `held` has its numbers in order, `times` when something
-- happens to each (the time to acknowledge is over, or it is due again), `state` the rest in one line:
-- deliveries ever, those of them that do not count (before a redrive), when the first one was, O (out), D (due
-- again) or R (due, and who had it has no say any more), whose it is, and how its last deliveries ended.

local CONSUMER_KEYS = 6
-- How many endings are remembered.
local HISTORY_MAX = 4
-- So many messages are looked at for one fetch, and so many bytes handed out, before it returns.
local SCAN_MAX = 1024
local FETCH_BYTES_MAX = 4194304
-- A list that is handed to a command has at most so many entries.
local LIST_MAX = 2000

local function consumer_at(base, uid)
  local c = {
    info = KEYS[base + 1],
    held = KEYS[base + 2],
    times = KEYS[base + 3],
    state = KEYS[base + 4],
    letters = KEYS[base + 5],
    dead = KEYS[base + 6],
  }
  local found = redis.call('HMGET', c.info, 'uid', 'name', 'cursor', 'top', 'paused', 'ack', 'ack_wait',
    'max_deliver', 'backoff', 'max_ack_pending', 'subjects', 'dead_letters')
  if not found[1] or (uid and found[1] ~= uid) then
    return nil
  end
  c.uid, c.name, c.cursor, c.top = found[1], found[2], tonumber(found[3]), tonumber(found[4])
  c.paused, c.ack, c.ack_wait = found[5] == '1', found[6], tonumber(found[7])
  c.max_deliver = tonumber(found[8] or nil)
  c.backoff = cjson.decode(found[9])
  c.max_ack_pending = tonumber(found[10])
  c.subjects = cjson.decode(found[11])
  c.dead_letters = found[12] == '1'
  c.counts = {}
  c.saved = c.cursor .. ' ' .. c.top
  return c
end

local NO_CONSUMER = { 'stream.consumer_not_found' }

local function count(c, name, by)
  c.counts[name] = (c.counts[name] or 0) + by
end

-- Every message up to here is done.
local function floor_of(c)
  local first = redis.call('ZRANGE', c.held, 0, 0)[1]
  return first and math.min(tonumber(first) - 1, c.cursor) or c.cursor
end

local function save_consumer(s, c)
  if c.cursor .. ' ' .. c.top ~= c.saved then
    redis.call('HSET', c.info, 'cursor', number(c.cursor), 'top', number(c.top))
  end
  for name, by in pairs(c.counts) do
    redis.call('HINCRBY', c.info, name, by)
  end
  redis.call('ZADD', s.consumers, number(floor_of(c)), c.name)
  release(s)
end

local function room(c)
  return c.max_ack_pending - redis.call('ZCARD', c.held)
end

-- --- What is held ---------------------------------------------------------------------------------

local function state_of(c, sequence)
  local line = redis.call('HGET', c.state, number(sequence))
  if not line then
    return nil
  end
  local total, before, first, flag, owner, history =
    string.match(line, '^(%d+) (%d+) (%d+) (%u) (%S+) (.*)$')
  return {
    total = tonumber(total), before = tonumber(before), first = first, flag = flag, owner = owner,
    history = history,
  }
end

local function line_of(held)
  return table.concat({
    number(held.total), number(held.before), held.first, held.flag, held.owner, held.history,
  }, ' ')
end

local function hold(c, sequence, held, time)
  redis.call('HSET', c.state, number(sequence), line_of(held))
  redis.call('ZADD', c.times, number(time), number(sequence))
end

-- The numbers are not held any more.
local function forget(c, sequences)
  for from = 1, #sequences, LIST_MAX do
    local part = {}
    for at = from, math.min(from + LIST_MAX - 1, #sequences) do
      part[#part + 1] = number(sequences[at])
    end
    redis.call('ZREM', c.held, unpack(part))
    redis.call('ZREM', c.times, unpack(part))
    redis.call('HDEL', c.state, unpack(part))
  end
end

local function note(held, at, ending)
  local events = {}
  for event in string.gmatch(held.history, '%S+') do
    events[#events + 1] = event
  end
  events[#events + 1] = number(at) .. ':' .. ending
  while #events > HISTORY_MAX do
    table.remove(events, 1)
  end
  held.history = table.concat(events, ' ')
end

-- The message is delivered no more.
local function die(s, c, sequence, held, reason)
  forget(c, { sequence })
  count(c, 'dead', 1)
  if not c.dead_letters then
    return
  end
  local fields = message_of(s, sequence)
  local letter = redis.call('HINCRBY', c.info, 'letters', 1)
  local entry = {
    'letter_sequence', number(sequence), 'letter_deliveries', number(held.total), 'letter_history',
    held.history, 'letter_found', fields and '1' or '0',
  }
  if reason then
    entry[#entry + 1] = 'letter_reason'
    entry[#entry + 1] = reason
  end
  for _, value in ipairs(fields or {}) do
    entry[#entry + 1] = value
  end
  redis.call('XADD', c.letters, id_of(letter), unpack(entry))
  redis.call('ZADD', c.dead, number(sequence), string.format('%016.0f', letter))
end

-- A delivery ended at `at` and its message is not done: it is due again, or dead.
local function finish(s, c, sequence, held, at, ending, delay)
  note(held, at, ending)
  local deliveries = held.total - held.before
  if c.max_deliver and deliveries >= c.max_deliver then
    return die(s, c, sequence, held, nil)
  end
  local step = math.min(math.max(deliveries, 1), #c.backoff)
  held.flag = ending == 'returned' and 'R' or 'D'
  hold(c, sequence, held, at + (delay or c.backoff[step] or 0))
end

-- --- Which messages it wants ----------------------------------------------------------------------

-- A pattern of subjects as one of Lua.
local function lua_pattern(pattern)
  local tokens = {}
  for token in string.gmatch(pattern, '[^.]+') do
    if token == '*' then
      token = '[^.]+'
    elseif token == '>' then
      token = '.+'
    else
      token = string.gsub(token, '[%^%$%(%)%%%.%[%]%*%+%-%?]', '%%%0')
    end
    tokens[#tokens + 1] = token
  end
  return '^' .. table.concat(tokens, '%.') .. '$'
end

local function matcher_of(patterns)
  local compiled = {}
  for at, pattern in ipairs(patterns) do
    compiled[at] = lua_pattern(pattern)
  end
  return function(fields)
    local subject = field(fields, 'subject')
    for _, pattern in ipairs(compiled) do
      if string.match(subject, pattern) then
        return true
      end
    end
    return #compiled == 0
  end
end
