# Makes agent and watchdog of this host start when the account `bitten` logs on, with a desktop: the way to run real
# terminals, which have no windows as a service and can then not be asked to close. Run it as an administrator.
#
# Before it: docs/host.md (account, folders, keys), C:\bitten\host.env, the wheel in C:\bitten\venv, and automatic logon
# of `bitten` (Sysinternals Autologon keeps its password as a secret of the system, not in the registry in the clear).
# A session that is disconnected goes on; one that logs off ends every terminal.
#
# Nobody has run this on Windows yet. To be tried there, with demo accounts, before customers are let in:
#   1. Both tasks run after a reboot, and again within seconds after their bitten-agent.exe was killed.
#   2. `Stop-ScheduledTask 'BITTEN agent'`: demo and live terminals go on.
#   3. bitten-agent.exe of the watchdog killed: every live terminal is gone at once, every demo terminal goes on.
#   4. The network cable pulled: live terminals are gone LEASE_SECONDS and FARM_STOP_SECONDS later, demo ones go on.
#   5. The task of the watchdog ended instead of its process: whether live terminals die with it or go on until the
#      agent stops them ten seconds later.
param([string]$Account = 'bitten', [string]$Folder = 'C:\bitten')
$ErrorActionPreference = 'Stop'

$principal = New-ScheduledTaskPrincipal -UserId "$env:COMPUTERNAME\$Account" -LogonType Interactive -RunLevel Limited
$trigger = New-ScheduledTaskTrigger -AtLogOn -User "$env:COMPUTERNAME\$Account"
$settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit ([TimeSpan]::Zero) -MultipleInstances IgnoreNew `
    -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -DontStopOnIdleEnd `
    -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -Priority 4

foreach ($task in @{ 'BITTEN watchdog' = 'watchdog'; 'BITTEN agent' = 'worker' }.GetEnumerator()) {
    $arguments = "-NoProfile -ExecutionPolicy Bypass -WindowStyle Hidden -File `"$Folder\run.ps1`" $($task.Value) -Folder `"$Folder`""
    $action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $arguments -WorkingDirectory $Folder
    Register-ScheduledTask -TaskName $task.Key -Action $action -Trigger $trigger -Principal $principal `
        -Settings $settings -Force | Out-Null
    Write-Output "$($task.Key): registered; it starts when $Account logs on."
}
