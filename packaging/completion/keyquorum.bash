# SPDX-License-Identifier: Apache-2.0
# bash completion for keyquorum. The words were filled in from docs/cli.md by packaging/bash_completion.py;
# nothing is started to complete a verb or an option, and lsblk to complete a device.

# What may follow `keyquorum WORDS`: verbs, actions and options.
_keyquorum_words() {
	case "$1" in
@WORDS@
	esac
}

# What kind of value an option takes: file, directory, holder, flags, other; nothing for an option without a value.
_keyquorum_value() {
	case "$1" in
@VALUES@
	esac
}

# Block devices, by path or behind UUID= and the like; any other path is a file, which may hold a volume too.
_keyquorum_devices() {
	local by
	case "$2:$1" in
	*UUID=:* | *LABEL=:* | ID=:*)
		by=${2%=}
		compgen -W "$(find "/dev/disk/by-${by,,}/" -type l -printf '%f\n' 2>/dev/null)" -- "$1"
		;;
	*:/dev/disk/* | *:/dev/mapper/*) compgen -f -- "$1" ;;
	*: | *:/ | *:/d | *:/de | *:/dev | *:/dev/*)
		compgen -W "$(lsblk --noheadings --raw --paths --output NAME 2>/dev/null)" -- "$1"
		;;
	*) compgen -f -- "$1" ;;
	esac
}

_keyquorum() {
	local cur=${COMP_WORDS[COMP_CWORD]} words='' before='' index word kind
	COMPREPLY=()
	# The verb, and the action of verbs that have one, are the first words that are no options.
	for ((index = 1; index < COMP_CWORD; index++)); do
		word=${COMP_WORDS[index]}
		[[ -n $(_keyquorum_words "${words:+$words }$word") ]] && words=${words:+$words }$word
	done
	((COMP_CWORD > 1)) && before=${COMP_WORDS[COMP_CWORD - 1]}
	if [[ $cur == = ]]; then # the cursor is just behind UUID=
		cur='' before="$before="
	elif [[ $before == = ]]; then
		before="${COMP_WORDS[COMP_CWORD - 2]}="
	fi
	kind=$(_keyquorum_value "${before%=}")
	case "$kind" in
	file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	directory) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	holder) mapfile -t COMPREPLY < <(compgen -W '@HOLDERS@' -- "$cur") ;;
	flags) mapfile -t COMPREPLY < <(compgen -W '@FLAGS@' -- "$cur") ;;
	other) ;;
	*)
		if [[ $cur == -* ]] || [[ -z $words || $words == @PARENTS@ ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_keyquorum_words "${words:-.}")" -- "$cur")
			return
		elif [[ $words == 'policy check' ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		else
			mapfile -t COMPREPLY < <(_keyquorum_devices "$cur" "$before")
		fi
		;;
	esac
	# A path is quoted by bash, and a directory gets its slash.
	if [[ ${COMPREPLY[0]-} == */* || $kind == file || $kind == directory ]]; then compopt -o filenames 2>/dev/null; fi
}

complete -F _keyquorum keyquorum
